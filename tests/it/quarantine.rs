//! Messages about runs that failed too often: a fact on the run, a line in the organization's list, and put back on request.

use serde_json::{Value, json};
use weft::domain::{OrgId, RunId};
use weft::store::envelope::{Message, open, seal};
use weft::store::key::Queue;
use weft::tenancy::{RunRef, operator, operator_in};
use weft::testing::{Answer, TestApp, WORKFLOW};
use weft::usecase::audit_log::AuditQuery;
use weft::usecase::deliver::{From, deliver};
use weft::usecase::seed::DEVELOPMENT_KEY;

async fn ask(app: &TestApp, method: &str, path: &str) -> Answer {
    let request = app.request(method, path).key(DEVELOPMENT_KEY).organization("contoso");
    let request = match method {
        "POST" => request.json(&json!({})).header("prefer", "respond-async"),
        _ => request,
    };
    request.send().await
}

async fn events(app: &TestApp, run: &str) -> Vec<String> {
    let org: OrgId = "contoso".parse().unwrap();
    let query = AuditQuery {
        resource_id: Some(run.to_owned()),
        limit: 200,
        ..AuditQuery::default()
    };
    let page = app.cx.audit.list(&operator_in(&operator(), &org), query).await.unwrap();
    page.items.into_iter().map(|entry| entry.plain.event).collect()
}

/// A message about a run that stands in the queue, and what the queue holds of it.
async fn pending(app: &TestApp) -> (String, String) {
    let begun = ask(app, "POST", &format!("/api/workflows/{WORKFLOW}/execute")).await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let run = begun.json()["runId"].as_str().unwrap().to_owned();
    let message = Message::DriveRun {
        run: RunRef {
            org: "contoso".parse().unwrap(),
            run: run.parse().unwrap(),
        },
        reason: "test".into(),
    };
    (run, seal(&app.cx.signing, &message))
}

#[tokio::test]
async fn a_message_that_was_set_aside_is_seen_and_put_back() {
    let app = TestApp::start().await;
    let (run, text) = pending(&app).await;
    let now = app.cx.clock.now();
    // It fails here, comes to quarantine, and fails there as well: one fact, however often.
    app.faults.down(true);
    assert!(deliver(&app.cx, From::Runs, &text, now, None).await.is_err());
    app.faults.down(false);
    app.faults.plan(weft::store::fault::Plan::Calm);
    let path = format!("/api/runs/{run}");
    assert_eq!(ask(&app, "GET", &path).await.json()["quarantined"], Value::Null);
    let early = ask(&app, "POST", &format!("{path}/requeue")).await;
    assert_eq!((early.status, early.code().as_str()), (409, "run_not_quarantined"));

    let id: RunId = run.parse().unwrap();
    let org: OrgId = "contoso".parse().unwrap();
    let scope = operator_in(&operator(), &org);
    // Somebody else drives it, so that quarantine has nothing to do but to record.
    let reference = RunRef { org, run: id.clone() };
    let stored = app.cx.runs.get(&scope, &id).await.unwrap().unwrap();
    let lease = weft::scheduler::Event::Taken {
        owner: "another".into(),
        lease_until: now.plus(std::time::Duration::from_secs(600)),
    };
    let taken = weft::scheduler::decide(&stored.new.plan, &stored.state, lease, now).unwrap();
    app.cx
        .runs
        .apply(&scope, stored, &taken, weft::store::repo::runs::Additions::default())
        .await
        .unwrap();
    for _ in 0..3 {
        weft::usecase::quarantine::quarantine(&app.cx, &reference, Queue::Runs, now)
            .await
            .unwrap();
    }
    let answer = ask(&app, "GET", &path).await.json();
    let facts = answer["quarantined"].as_array().unwrap();
    assert!((1..=2).contains(&facts.len()), "one a minute: {answer}");
    let fact = facts.last().unwrap();
    assert_eq!((&fact["queue"], &fact["deliveries"]), (&json!("weft-runs"), &json!(5)));
    assert!(
        fact["failure"].as_str().unwrap().starts_with("storage_unavailable"),
        "{fact}"
    );
    let list = ask(&app, "GET", "/api/quarantine").await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), facts.len());
    assert_eq!(
        (&list["items"][0]["runId"], &list["items"][0]["workflow"]),
        (&json!(run), &json!(WORKFLOW))
    );
    let quarantined = events(&app, &run).await;
    let count = quarantined
        .iter()
        .filter(|event| *event == "message.quarantined")
        .count();
    assert_eq!(count, facts.len());
    // Nobody else sees it.
    let theirs = app
        .request("GET", "/api/quarantine")
        .key(DEVELOPMENT_KEY)
        .organization("fabrikam");
    assert_eq!(theirs.send().await.json()["items"], json!([]));

    let queue = Queue::Runs.name();
    let hidden = std::time::Duration::from_secs(3600);
    while !app
        .cx
        .ports
        .queues
        .receive(&queue, 32, hidden)
        .await
        .unwrap()
        .is_empty()
    {}
    let put = ask(&app, "POST", &format!("{path}/requeue")).await;
    assert_eq!((put.status, &put.json()["runId"]), (202, &json!(run)), "{}", put.text());
    let sent = app.cx.ports.queues.receive(&queue, 32, hidden).await.unwrap();
    assert_eq!(sent.len(), 1);
    let said = format!("{:?}", open(&app.cx.signing, &sent[0].text).unwrap());
    assert!(said.contains(&run) && said.contains("requeued"), "{said}");
    let fact = ask(&app, "GET", &path).await.json()["quarantined"][0].clone();
    assert!(
        fact["requeuedAt"].is_string() && fact["requeuedBy"].as_str().unwrap().starts_with("key:"),
        "{fact}"
    );
    assert!(ask(&app, "GET", "/api/quarantine").await.json()["items"][0]["requeuedAt"].is_string());
    assert!(events(&app, &run).await.contains(&"message.requeued".to_owned()));
    let again = ask(&app, "POST", &format!("{path}/requeue")).await;
    assert_eq!((again.status, again.code().as_str()), (409, "run_not_quarantined"));
    assert_eq!(ask(&app, "POST", &format!("{path}/cancel")).await.status, 200);
    let ended = ask(&app, "POST", &format!("{path}/requeue")).await;
    assert_eq!((ended.status, ended.code().as_str()), (409, "run_ended"));
}

#[tokio::test]
async fn what_may_be_over_is_tried_again_at_once() {
    let app = TestApp::start().await;
    let (run, text) = pending(&app).await;
    deliver(&app.cx, From::RunsPoison, &text, app.cx.clock.now(), None)
        .await
        .unwrap();
    let answer = ask(&app, "GET", &format!("/api/runs/{run}")).await.json();
    assert_eq!(answer["status"], "succeeded", "{answer}");
    assert_eq!(
        answer["quarantined"].as_array().unwrap().len(),
        1,
        "the fact stays: {answer}"
    );
}

//! Audit records on real storage: chains under concurrency, faults and tampering; sealing, erasing, listing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use weft::audit::{Break, Broken, Chain, Event, Head, Level, LinkedRecord, Opened, Owner, Record, Subject};
use weft::authz::{Caller, KeyScope, Origin, Principal, Tier};
use weft::clock::{Clock, Entropy, ManualClock};
use weft::domain::{KeyId, OrgId, RunId, Timestamp, UserId};
use weft::store::Error;
use weft::store::fault::{Call, Fault, Faults, Faulty, Plan, Rule};
use weft::store::key::{self, PlatformTable};
use weft::store::port::{
    ETag, Entity, Key, Match, Operation, Ports, Properties, Query, Result, TableName, TableStore, Value,
};
use weft::store::repo::audit_log::{
    AuditLog, AuditQuery, MAX_GROUP, Verdict, from_properties, index_operations, rows_for_run, to_properties,
};
use weft::store::sqlite;
use weft::tenancy::{Organization, PlatformScope, Scope, operator, operator_in, resolve_key, system};

use crate::tapped::{Tap, tapped};

const NOW: i64 = 1_795_219_200_000;
const TODAY: &str = "20261121";
const DAY: Duration = Duration::from_secs(86_400);

struct World {
    ports: Ports,
    faults: Arc<Faults>,
    clock: Arc<ManualClock>,
    entropy: Arc<Entropy>,
    scope: Scope,
    platform: PlatformScope,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(NOW)));
        let ports = sqlite::open(None, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let (ports, faults) = Faulty::wrap(ports, Plan::Calm);
        let platform = system("test");
        for org in ["contoso", "fabrikam"] {
            ports
                .tables
                .create_table(&key::org_table(&org.parse().unwrap()))
                .await
                .unwrap();
        }
        ports.tables.create_table(&PlatformTable::Audit.name()).await.unwrap();
        let scope = operator_in(&platform, &"contoso".parse().unwrap());
        Self {
            ports,
            faults,
            clock,
            entropy: Arc::new(Entropy::seeded(7)),
            scope,
            platform,
        }
    }

    fn log(&self) -> AuditLog {
        self.log_on(self.ports.clone())
    }

    fn log_on(&self, ports: Ports) -> AuditLog {
        AuditLog::new(
            ports,
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::clone(&self.entropy),
        )
    }

    fn table(&self) -> TableName {
        key::org_table(self.scope.org())
    }

    fn day_chain(&self, log: &AuditLog) -> Chain {
        day_chain(log, TODAY)
    }

    async fn get(&self, partition: &Key, row: &Key) -> Entity {
        self.ports
            .tables
            .get(&self.table(), partition, row)
            .await
            .unwrap()
            .expect("the row is there")
    }

    async fn change(&self, partition: &Key, operation: Operation) {
        self.ports
            .tables
            .commit(&self.table(), partition, vec![operation])
            .await
            .unwrap();
    }

    /// The one day chain's verdict.
    async fn day(&self, log: &AuditLog) -> std::result::Result<Head, Broken> {
        let chain = self.day_chain(log);
        let verdicts = log.verify_day(&self.scope, TODAY).await.unwrap();
        verdicts
            .into_iter()
            .find(|verdict| verdict.chain == chain)
            .expect("the chain is known")
            .result
    }
}

fn day_chain(log: &AuditLog, day: &str) -> Chain {
    let owner = Owner::Organization("contoso".parse().unwrap());
    Chain::Day {
        owner,
        day: day.to_owned(),
        writer: log.writer().to_owned(),
    }
}

fn caller(claimed: Option<&str>) -> Caller {
    let key = KeyId::generate(Timestamp::from_millis(1), [8; 10]);
    Caller {
        principal: Principal::Service {
            key,
            name: "erp".into(),
            scopes: vec![KeyScope::All],
            made_by: None,
            claimed_user: claimed.map(str::to_owned),
        },
        tier: Tier::FunctionKey,
        key_organizations: vec![],
        also_principal: Some("https://issuer/ 4711".into()),
        origin: Origin {
            address: "203.0.113.9".into(),
            address_verified: true,
            agent: "curl/8".into(),
            request_id: "req-1".into(),
            endpoint: "POST /api/workflows/hello/execute".into(),
        },
    }
}

fn bypass(log: &AuditLog, claimed: &str) -> Record {
    log.of(Event::KeyBypass, &caller(Some(claimed)))
        .resource("organization", "contoso")
}

async fn chain_of(world: &World, log: &AuditLog) -> Vec<LinkedRecord> {
    log.chain(&world.scope, &world.day_chain(log), 0, 100_000)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_warm_record_costs_one_transaction() {
    let world = World::new().await;
    let log = world.log();
    log.append(&world.scope, bypass(&log, "ada@example.org")).await.unwrap();
    world.faults.reset();
    let linked = log
        .append(&world.scope, bypass(&log, "ADA@example.org "))
        .await
        .unwrap();
    assert_eq!((world.faults.total(), world.faults.count(Call::Commit)), (1, 1));
    log.index(&world.scope, std::slice::from_ref(&linked)).await.unwrap();
    assert_eq!((world.faults.total(), world.faults.count(Call::Commit)), (2, 2));
    assert_eq!(linked.sequence, 2);
    assert_eq!(world.day(&log).await, Ok(linked.head()));
}

#[tokio::test]
async fn nothing_of_a_person_is_readable_in_storage() {
    let world = World::new().await;
    let log = world.log();
    let linked = log.append(&world.scope, bypass(&log, "ada@example.org")).await.unwrap();
    log.index(&world.scope, &[linked]).await.unwrap();
    for partition in [
        key::audit_chain(TODAY, log.writer()),
        key::index(),
        key::subjects(),
        key::audit_seal(),
    ] {
        let page = world
            .ports
            .tables
            .query(&world.table(), Query::partition(partition))
            .await
            .unwrap();
        assert!(!page.entities.is_empty());
        let text = format!("{page:?}");
        for word in ["ada", "203.0.113", "curl", "4711"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_make_one_chain_without_gaps() {
    let world = World::new().await;
    let log = world.log();
    world.faults.plan(Plan::Script(vec![
        Rule::new(Fault::Delay(Duration::from_millis(2))).calls(&[Call::Commit]),
    ]));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let (log, scope) = (log.clone(), world.scope.clone());
        tasks.spawn(async move {
            let mut written = Vec::new();
            for _ in 0..5 {
                written.push(
                    log.append(&scope, bypass(&log, &format!("user{}", n % 4)))
                        .await
                        .unwrap(),
                );
            }
            written
        });
    }
    let written: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let commits = world.faults.count(Call::Commit);
    let stored = chain_of(&world, &log).await;
    assert_eq!(stored.len(), 320);
    assert_eq!(world.day(&log).await.map(|head| head.sequence), Ok(320));
    // Each caller was told the place that its own record has.
    for linked in &written {
        assert_eq!(stored[linked.sequence as usize - 1], *linked);
    }
    assert!(commits < 320 / 4, "{commits} transactions for 320 records");
    assert!(commits >= 320 / MAX_GROUP as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_share_a_store() {
    let world = World::new().await;
    let logs = [world.log(), world.log()];
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (log, scope) = (logs[n % 2].clone(), world.scope.clone());
        tasks.spawn(async move { log.append(&scope, bypass(&log, "ada")).await.unwrap() });
    }
    tasks.join_all().await;
    let verdicts = logs[0].verify_day(&world.scope, TODAY).await.unwrap();
    assert_eq!(verdicts.len(), 3);
    let heads: Vec<u64> = verdicts
        .iter()
        .map(|verdict| verdict.result.as_ref().unwrap().sequence)
        .collect();
    assert_eq!(heads, [0, 20, 20]);
    // Both met the same person at the same time, and use one key.
    let mut subjects = BTreeSet::new();
    for log in &logs {
        for record in chain_of(&world, log).await {
            subjects.insert(record.sealed.actor.unwrap().subject);
        }
    }
    assert_eq!(subjects.len(), 1);
}

#[tokio::test]
async fn organizations_and_platform_are_apart() {
    let world = World::new().await;
    let log = world.log();
    let other = operator_in(&operator(), &"fabrikam".parse().unwrap());
    let sealed = log.seal(&world.scope, bypass(&log, "ada")).await.unwrap();
    assert!(matches!(
        log.write(&other, sealed.clone()).await,
        Err(Error::Malformed { .. })
    ));
    assert!(matches!(
        log.write(&world.platform, sealed.clone()).await,
        Err(Error::Malformed { .. })
    ));
    let linked = log.write(&world.scope, sealed).await.unwrap();
    assert!(matches!(
        log.chain(&other, &linked.chain, 0, 10).await,
        Err(Error::Malformed { .. })
    ));
    log.index(&world.scope, &[linked]).await.unwrap();

    let denied = log.anonymous(Event::AccessDenied, &caller(None).origin);
    let linked = log.append(&world.platform, denied).await.unwrap();
    log.index(&world.platform, &[linked]).await.unwrap();
    let page = log.list(&world.platform, AuditQuery::default()).await.unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.items[0].plain.owner, Owner::Platform);
    assert_eq!(page.items[0].plain.principal.kind, "anonymous");
    assert_eq!(
        page.items[0].personal.readable().unwrap().address.as_deref(),
        Some("203.0.113.9")
    );
    assert_eq!(
        log.list(&world.scope, AuditQuery::default()).await.unwrap().items.len(),
        1
    );
    assert_eq!(log.list(&other, AuditQuery::default()).await.unwrap().items.len(), 0);
}

#[tokio::test]
async fn an_erased_person_is_unreadable_and_every_chain_verifies() {
    let world = World::new().await;
    let (log, reader) = (world.log(), world.log());
    let grace = UserId::generate(Timestamp::from_millis(3), [5; 10]);
    let mut written = Vec::new();
    for name in ["ada", "bob"] {
        let record = bypass(&log, name).about(&grace, &json!({"email": {"from": null, "to": "grace@example.org"}}));
        written.push(log.append(&world.scope, record).await.unwrap());
    }
    log.index(&world.scope, &written).await.unwrap();
    let by = |subject: Subject| AuditQuery {
        subject: Some(subject),
        ..AuditQuery::default()
    };
    let ada = reader
        .list(&world.scope, by(Subject::claimed("Ada")))
        .await
        .unwrap()
        .items;
    assert_eq!(ada.len(), 1);
    assert_eq!(ada[0].personal.readable().unwrap().claimed_user.as_deref(), Some("ada"));
    assert_eq!(ada[0].about.readable().unwrap()["email"]["to"], "grace@example.org");
    assert_eq!(
        reader
            .list(&world.scope, by(Subject::user(&grace)))
            .await
            .unwrap()
            .items
            .len(),
        2
    );

    assert!(log.erase_subject(&world.scope, &Subject::claimed("ada")).await.unwrap());
    assert!(!log.erase_subject(&world.scope, &Subject::claimed("ada")).await.unwrap());
    assert!(log.erase_subject(&world.scope, &Subject::user(&grace)).await.unwrap());
    let all = reader.list(&world.scope, AuditQuery::default()).await.unwrap().items;
    let ada = all.iter().find(|entry| entry.plain.id == ada[0].plain.id).unwrap();
    let bob = all.iter().find(|entry| entry.plain.id != ada.plain.id).unwrap();
    assert_eq!((&ada.personal, &ada.about), (&Opened::Erased, &Opened::Erased));
    assert_eq!(ada.plain.key.as_deref(), Some("erp"));
    assert!(bob.personal.readable().is_some());
    assert_eq!(world.day(&log).await.map(|head| head.sequence), Ok(2));

    // Whoever comes back is a new subject.
    let back = log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
    assert_ne!(
        back.sealed.actor.as_ref().unwrap().subject,
        written[0].sealed.actor.as_ref().unwrap().subject
    );
    let opened = reader.opened(&world.scope, vec![back]).await.unwrap();
    assert!(opened[0].personal.readable().is_some());

    // A key that is gone without an erasure is another matter.
    let reference = &written[1].sealed.actor.as_ref().unwrap().subject;
    world
        .change(
            &key::subjects(),
            Operation::Delete(key::subject_reference_row(reference), Match::Any),
        )
        .await;
    let opened = reader.opened(&world.scope, vec![written[1].clone()]).await.unwrap();
    assert_eq!(opened[0].personal, Opened::Unreadable);
}

#[tokio::test]
async fn lists_newest_first_in_pages_and_filters() {
    let world = World::new().await;
    let log = world.log();
    let mut written = Vec::new();
    for n in 0..25_u32 {
        let record = match n % 3 {
            0 => bypass(&log, "ada"),
            1 => log
                .by(&world.scope, Event::ConfigChanged)
                .resource("config", &format!("limit{n}")),
            _ => log.by(&world.scope, Event::AuditBroken),
        };
        written.push(log.append(&world.scope, record).await.unwrap());
        world.clock.advance(Duration::from_secs(1));
    }
    log.index(&world.scope, &written).await.unwrap();
    log.index(&world.scope, &written).await.unwrap();

    let mut query = AuditQuery {
        limit: 10,
        ..AuditQuery::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = log.list(&world.scope, query.clone()).await.unwrap();
        assert!(page.items.len() <= 10);
        seen.extend(page.items);
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    let expected: Vec<_> = written.iter().rev().map(|linked| linked.sequence).collect();
    assert_eq!(seen.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), expected);

    let count = async |query: AuditQuery| log.list(&world.scope, query).await.unwrap().items.len();
    let all = AuditQuery {
        limit: 200,
        ..AuditQuery::default()
    };
    assert_eq!(
        count(AuditQuery {
            level: Some(Level::Warning),
            ..all.clone()
        })
        .await,
        9
    );
    assert_eq!(
        count(AuditQuery {
            level: Some(Level::Critical),
            ..all.clone()
        })
        .await,
        8
    );
    assert_eq!(
        count(AuditQuery {
            event: Some(Event::ConfigChanged),
            ..all.clone()
        })
        .await,
        8
    );
    assert_eq!(
        count(AuditQuery {
            resource_kind: Some("config".into()),
            ..all.clone()
        })
        .await,
        8
    );
    assert_eq!(
        count(AuditQuery {
            resource_id: Some("limit4".into()),
            ..all.clone()
        })
        .await,
        1
    );
    assert_eq!(
        count(AuditQuery {
            principal: Some("system:test".into()),
            ..all.clone()
        })
        .await,
        16
    );
    assert_eq!(
        count(AuditQuery {
            principal: Some("x' or 1 eq 1".into()),
            ..all.clone()
        })
        .await,
        0
    );
    assert_eq!(
        count(AuditQuery {
            subject: Some(Subject::claimed("nobody")),
            ..all.clone()
        })
        .await,
        0
    );
    let at = |seconds: i64| Some(Timestamp::from_millis(NOW + seconds * 1000));
    assert_eq!(
        count(AuditQuery {
            from: at(5),
            to: at(8),
            ..all.clone()
        })
        .await,
        3
    );
    assert_eq!(
        count(AuditQuery {
            from: at(0),
            ..all.clone()
        })
        .await,
        25
    );
    assert_eq!(
        count(AuditQuery {
            to: at(0),
            ..all.clone()
        })
        .await,
        0
    );
    assert_eq!(
        count(AuditQuery {
            from: at(8),
            to: at(5),
            ..all.clone()
        })
        .await,
        0
    );
    assert_eq!(
        count(AuditQuery {
            from: at(24),
            ..all.clone()
        })
        .await,
        1
    );
    let bad = log
        .list(
            &world.scope,
            AuditQuery {
                cursor: Some("%".into()),
                ..all
            },
        )
        .await;
    assert!(matches!(bad, Err(Error::Malformed { .. })));
}

#[tokio::test]
async fn the_index_is_rebuilt_from_the_chains() {
    let world = World::new().await;
    let log = world.log();
    for _ in 0..80 {
        log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
    }
    let all = AuditQuery {
        limit: 200,
        ..AuditQuery::default()
    };
    assert_eq!(log.list(&world.scope, all.clone()).await.unwrap().items.len(), 0);
    for chain in log.chains(&world.scope, TODAY).await.unwrap() {
        assert_eq!(log.repair_index(&world.scope, &chain).await.unwrap(), 80);
        assert_eq!(log.repair_index(&world.scope, &chain).await.unwrap(), 80);
    }
    assert_eq!(log.list(&world.scope, all).await.unwrap().items.len(), 80);
}

#[tokio::test]
async fn a_run_keeps_its_chain_in_its_own_partition() {
    let world = World::new().await;
    let log = world.log();
    let run = RunId::generate(Timestamp::from_millis(NOW), [1; 10]);
    let mut head = Head::EMPTY;
    for event in [Event::RunStarted, Event::StepRefused, Event::RunFinished] {
        let record = log.by(&world.scope, event).resource("run", run.as_str());
        let sealed = log.seal(&world.scope, record).await.unwrap();
        let rows = rows_for_run(&world.scope, &run, &head, vec![sealed]);
        head = rows.head.to_string().parse().unwrap();
        world
            .ports
            .tables
            .commit(&world.table(), &key::run(&run), rows.operations)
            .await
            .unwrap();
        let index = index_operations(&rows.records).unwrap();
        world
            .ports
            .tables
            .commit(&world.table(), &key::index(), index)
            .await
            .unwrap();
    }
    let verdict = log.verify_run(&world.scope, &run, Some(&head)).await.unwrap();
    assert_eq!(verdict.result, Ok(head));
    let query = AuditQuery {
        resource_id: Some(run.to_string()),
        ..AuditQuery::default()
    };
    assert_eq!(log.list(&world.scope, query).await.unwrap().items.len(), 3);
    world
        .change(&key::run(&run), Operation::Delete(key::audit_row(3), Match::Any))
        .await;
    let verdict = log.verify_run(&world.scope, &run, Some(&head)).await.unwrap();
    assert_eq!(
        verdict.result,
        Err(Broken {
            sequence: 3,
            kind: Break::Truncated
        })
    );
    assert_eq!(log.repair_index(&world.scope, &verdict.chain).await.unwrap(), 2);
}

#[tokio::test]
async fn tampering_with_rows_is_found() {
    let world = World::new().await;
    let log = world.log();
    for n in 0..6 {
        log.append(&world.scope, bypass(&log, &format!("user{n}")))
            .await
            .unwrap();
    }
    let partition = key::audit_chain(TODAY, log.writer());
    let good = world.day(&log).await.unwrap();
    let mut rows = Vec::new();
    for n in 1..=6 {
        rows.push(world.get(&partition, &key::audit_row(n)).await.properties);
    }
    let put = async |n: u64, properties: &Properties| {
        world
            .change(&partition, Operation::Upsert(key::audit_row(n), properties.clone()))
            .await;
    };
    let found = async || world.day(&log).await.unwrap_err();
    let broken = |sequence, kind| Broken { sequence, kind };

    // Every property of a row counts.
    for (name, value) in rows[2].iter() {
        let other = match value {
            Value::Text(text) if name == "body" => Value::Text(text.replace("allowed", "denied")),
            Value::Text(text) => Value::Text(format!("{text}0")),
            Value::Int(number) => Value::Int(number + 100),
            Value::Bytes(bytes) => Value::Bytes(bytes.iter().map(|byte| byte ^ 1).collect()),
            other => panic!("{other:?}"),
        };
        put(3, &rows[2].clone().with(name, other)).await;
        assert_eq!(found().await, broken(3, Break::Edited), "{name}");
        let mut without = rows[2].clone();
        without.remove(name);
        put(3, &without).await;
        assert_eq!(found().await, broken(3, Break::Edited), "{name}");
        put(3, &rows[2]).await;
    }
    assert_eq!(world.day(&log).await, Ok(good));

    world
        .change(&partition, Operation::Delete(key::audit_row(4), Match::Any))
        .await;
    assert_eq!(found().await, broken(4, Break::Removed));
    put(4, &rows[3]).await;

    put(2, &rows[4]).await;
    put(5, &rows[1]).await;
    assert_eq!(found().await, broken(2, Break::Reordered));
    put(2, &rows[1]).await;
    put(5, &rows[4]).await;

    put(7, &rows[0]).await;
    assert_eq!(found().await, broken(7, Break::Inserted));
    world
        .change(&partition, Operation::Delete(key::audit_row(7), Match::Any))
        .await;

    world
        .change(&partition, Operation::Delete(key::audit_row(6), Match::Any))
        .await;
    assert_eq!(found().await, broken(6, Break::Truncated));

    // The head goes along with the cut: only the seals know.
    put(6, &rows[5]).await;
    assert_eq!(log.seal_heads(&world.scope, TODAY).await.unwrap(), 1);
    let chain = world.day_chain(&log);
    world
        .change(&partition, Operation::Delete(key::audit_row(6), Match::Any))
        .await;
    let fifth = from_properties(&chain, &rows[4]).unwrap();
    assert_eq!(to_properties(&fifth), rows[4]);
    let head = Properties::new().with("v", 1).with("head", fifth.head().to_string());
    world
        .change(&partition, Operation::Upsert(key::audit_head_row(), head))
        .await;
    assert_eq!(found().await, broken(6, Break::Truncated));

    // The whole chain is gone, and its entry with it.
    for n in 1..=5 {
        world
            .change(&partition, Operation::Delete(key::audit_row(n), Match::Any))
            .await;
    }
    world
        .change(&partition, Operation::Delete(key::audit_head_row(), Match::Any))
        .await;
    let entry = key::audit_writer_row(TODAY, log.writer());
    world
        .change(&key::audit_seal(), Operation::Delete(entry, Match::Any))
        .await;
    assert_eq!(found().await, broken(1, Break::Truncated));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_sealed_once() {
    let world = World::new().await;
    let mut logs = Vec::new();
    for n in 0..34 {
        let log = world.log();
        for _ in 0..=n % 3 {
            log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
        }
        logs.push(log);
    }
    let tick = [world.log(), world.log()];
    let (a, b) = tokio::join!(
        tick[0].seal_heads(&world.scope, TODAY),
        tick[1].seal_heads(&world.scope, TODAY)
    );
    assert_eq!(a.unwrap() + b.unwrap(), 34);
    assert_eq!(tick[0].seal_heads(&world.scope, TODAY).await.unwrap(), 0);
    logs[3].append(&world.scope, bypass(&logs[3], "ada")).await.unwrap();
    assert_eq!(tick[0].seal_heads(&world.scope, TODAY).await.unwrap(), 1);
    let verdicts = tick[0].verify_day(&world.scope, TODAY).await.unwrap();
    assert_eq!(verdicts.len(), 35);
    assert!(verdicts.iter().all(|verdict| verdict.result.is_ok()), "{verdicts:?}");
    let seals: &Verdict = verdicts
        .iter()
        .find(|verdict| matches!(verdict.chain, Chain::Seal { .. }))
        .expect("the chain of seals");
    assert_eq!(seals.result.as_ref().unwrap().sequence, 3);
    assert_eq!(tick[0].seal_heads(&world.platform, TODAY).await.unwrap(), 0);
}

#[tokio::test]
async fn a_new_day_names_the_last_ones_head() {
    let world = World::new().await;
    let log = world.log();
    let last = log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
    world.clock.advance(DAY);
    let first = log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
    assert_eq!(first.sequence, 2);
    let chain = log
        .chain(&world.scope, &day_chain(&log, "20261122"), 0, 10)
        .await
        .unwrap();
    let opening = chain[0].sealed.plain().unwrap();
    assert_eq!(opening.known_event(), Some(Event::ChainOpened));
    let detail = opening.detail.unwrap();
    assert_eq!(detail["previous"]["head"], last.head().to_string());
    assert_eq!(detail["previous"]["chain"], last.chain.to_string());
    for day in [TODAY, "20261122"] {
        assert!(
            log.verify_day(&world.scope, day)
                .await
                .unwrap()
                .iter()
                .all(|verdict| verdict.result.is_ok())
        );
    }
}

// ── faults ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn without_storage_nothing_is_acknowledged() {
    let world = World::new().await;
    let log = world.log();
    world.faults.down(true);
    let refused = log.append(&world.scope, bypass(&log, "ada")).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    world.faults.down(false);
    log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
    world.faults.down(true);
    let sealed = log.seal(&world.scope, bypass(&log, "ada")).await.unwrap();
    assert!(matches!(
        log.write(&world.scope, sealed.clone()).await,
        Err(Error::Unavailable { .. })
    ));
    world.faults.down(false);
    assert_eq!(log.write(&world.scope, sealed).await.unwrap().sequence, 2);
}

#[tokio::test]
async fn a_lost_answer_is_found_out() {
    let world = World::new().await;
    let log = world.log();
    log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
    world.faults.plan(Plan::Script(vec![
        Rule::new(Fault::After).calls(&[Call::Commit]).only(1),
    ]));
    let linked = log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
    assert_eq!(chain_of(&world, &log).await.last(), Some(&linked));

    // The connection breaks with the answer: the caller is told, and repeats.
    let sealed = log.seal(&world.scope, bypass(&log, "ada")).await.unwrap();
    world.faults.plan(Plan::Script(vec![
        Rule::new(Fault::CrashAfter).calls(&[Call::Commit]).only(1),
    ]));
    assert!(log.write(&world.scope, sealed.clone()).await.is_err());
    world.faults.heal();
    let linked = log.write(&world.scope, sealed).await.unwrap();
    assert_eq!(linked.sequence, 3);
    assert_eq!(world.day(&log).await, Ok(linked.head()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_never_forks_and_no_record_stands_twice() {
    for seed in 0..30 {
        let world = World::new().await;
        let log = world.log();
        world.faults.plan(Plan::Seeded { seed, per_mille: 250 });
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..16 {
            let (log, scope) = (log.clone(), world.scope.clone());
            tasks.spawn(async move {
                let mut ids = Vec::new();
                for _ in 0..4 {
                    let record = bypass(&log, &format!("user{}", n % 3));
                    let sealed = loop {
                        if let Ok(sealed) = log.seal(&scope, record.clone()).await {
                            break sealed;
                        }
                    };
                    while log.write(&scope, sealed.clone()).await.is_err() {}
                    ids.push(record.id().clone());
                }
                ids
            });
        }
        let ids: BTreeSet<_> = tasks.join_all().await.into_iter().flatten().collect();
        world.faults.plan(Plan::Calm);
        let stored = chain_of(&world, &log).await;
        let found: Vec<_> = stored.iter().map(|linked| linked.sealed.plain().unwrap().id).collect();
        assert_eq!(found.len(), 64, "seed {seed}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), ids, "seed {seed}");
        assert!(world.day(&log).await.is_ok(), "seed {seed}");
        let opened = log.opened(&world.scope, stored).await.unwrap();
        assert!(
            opened.iter().all(|entry| entry.personal.readable().is_some()),
            "seed {seed}"
        );
    }
}

/// Answers that a transaction is lost, and carries it out later.
#[derive(Debug, Default)]
struct Late {
    hold: Mutex<bool>,
    held: Mutex<Option<(TableName, Key, Vec<Operation>)>>,
}

impl Late {
    async fn arrive(&self, store: &dyn TableStore) -> Result<Vec<ETag>> {
        let (table, partition, operations) = self.held.lock().unwrap().take().expect("one is held");
        store.commit(&table, &partition, operations).await
    }
}

#[async_trait]
impl Tap for Late {
    async fn commit(
        &self,
        store: &dyn TableStore,
        table: &TableName,
        partition: &Key,
        operations: Vec<Operation>,
    ) -> Result<Vec<ETag>> {
        // Chains only: entries and keys have partitions of their own.
        if partition.as_str().starts_with("audit:") && std::mem::take(&mut *self.hold.lock().unwrap()) {
            *self.held.lock().unwrap() = Some((table.clone(), partition.clone(), operations));
            return Err(Error::Unavailable {
                what: "commit".into(),
                source: "lost".into(),
            });
        }
        store.commit(table, partition, operations).await
    }
}

fn late(world: &World) -> (AuditLog, Arc<Late>) {
    let late = Arc::new(Late::default());
    (world.log_on(tapped(&world.ports, &late)), late)
}

#[tokio::test]
async fn a_transaction_that_arrives_late_forks_nothing() {
    let world = World::new().await;
    let (log, late) = late(&world);
    log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
    let sealed = log.seal(&world.scope, bypass(&log, "ada")).await.unwrap();

    // It arrives before the next: that one steps behind it, and the repeat is recognised.
    *late.hold.lock().unwrap() = true;
    assert!(log.write(&world.scope, sealed.clone()).await.is_err());
    late.arrive(world.ports.tables.as_ref()).await.unwrap();
    assert_eq!(log.append(&world.scope, bypass(&log, "ada")).await.unwrap().sequence, 3);
    assert_eq!(log.write(&world.scope, sealed).await.unwrap().sequence, 2);

    // It arrives after the next: it is too late.
    let sealed = log.seal(&world.scope, bypass(&log, "ada")).await.unwrap();
    *late.hold.lock().unwrap() = true;
    assert!(log.write(&world.scope, sealed.clone()).await.is_err());
    assert_eq!(log.write(&world.scope, sealed).await.unwrap().sequence, 4);
    assert!(
        late.arrive(world.ports.tables.as_ref())
            .await
            .unwrap_err()
            .is_conflict()
    );
    assert_eq!(world.day(&log).await.map(|head| head.sequence), Ok(4));
}

#[tokio::test]
async fn a_transaction_that_arrives_on_the_next_day_is_too_late() {
    let world = World::new().await;
    for before in 0..3 {
        let (log, late) = late(&world);
        let today = world.clock.now().day();
        for _ in 0..before {
            log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
        }
        let sealed = log.seal(&world.scope, bypass(&log, "ada")).await.unwrap();
        *late.hold.lock().unwrap() = true;
        assert!(log.write(&world.scope, sealed.clone()).await.is_err());
        world.clock.advance(DAY);
        let linked = log.write(&world.scope, sealed).await.unwrap();
        assert_eq!(linked.chain, day_chain(&log, &world.clock.now().day()));
        assert_eq!(linked.sequence, if before == 0 { 1 } else { 2 });
        assert!(
            late.arrive(world.ports.tables.as_ref())
                .await
                .unwrap_err()
                .is_conflict()
        );
        for day in [today, world.clock.now().day()] {
            let verdicts = log.verify_day(&world.scope, &day).await.unwrap();
            assert!(verdicts.iter().all(|verdict| verdict.result.is_ok()), "{verdicts:?}");
        }
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_takes_nothing_with_it() {
    let world = World::new().await;
    let log = world.log();
    log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
    let delay = Rule::new(Fault::Delay(Duration::from_millis(60)))
        .calls(&[Call::Commit])
        .only(1);
    world.faults.plan(Plan::Script(vec![delay]));
    let impatient = tokio::time::timeout(Duration::from_millis(10), log.append(&world.scope, bypass(&log, "ada")));
    assert!(impatient.await.is_err());
    let linked = log.append(&world.scope, bypass(&log, "ada")).await.unwrap();
    assert_eq!(linked.sequence, 3);
    assert_eq!(world.day(&log).await, Ok(linked.head()));
}

#[tokio::test]
async fn a_key_opens_the_door_in_its_own_scope() {
    let world = World::new().await;
    let log = world.log();
    let org: OrgId = "contoso".parse().unwrap();
    let caller = caller(None);
    let found = Organization {
        id: org.clone(),
        name: "Contoso".into(),
        active: true,
    };
    let scope = resolve_key(&org, Some(&found), &[], caller.principal.clone()).unwrap();
    let linked = log.append(&scope, log.of(Event::KeyBypass, &caller)).await.unwrap();
    log.index(&scope, &[linked]).await.unwrap();
    let entry = log.list(&scope, AuditQuery::default()).await.unwrap().items.remove(0);
    assert_eq!(entry.plain.level, Level::Warning);
    assert_eq!(entry.plain.owner, Owner::Organization(org));
    let personal = entry.personal.readable().unwrap();
    assert_eq!(personal.also_principal.as_deref(), Some("https://issuer/ 4711"));
    assert!(personal.address_verified);
    assert_eq!(
        entry.plain.endpoint.as_deref(),
        Some("POST /api/workflows/hello/execute")
    );
}

//! Ceilings of what steps may do: that nothing exceeds any of them in whatever order, who changes them, and what they refuse.

use proptest::prelude::*;
use serde_json::{Value, json};
use weft::domain::{
    Holder, HostSet, LimitCeilings, Limits, ModulePolicy, ModuleRules, Network, NetworkMode, NetworkPolicy, OrgId,
    Policy, Rights, Tier, Trust, settle,
};
use weft::runner::BundleDescription;
use weft::tenancy::{operator, operator_in};
use weft::testing::{Answer, TestApp, WORKFLOW};
use weft::usecase::audit_log::AuditQuery;
use weft::usecase::seed::DEVELOPMENT_KEY;

// ── properties ─────────────────────────────────────────────────────────────────────────────────────────────────────────

fn host() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "a.example",
        "b.a.example",
        "c.b.a.example",
        "d.example",
        "example",
        "e.org",
    ]);
    (
        name,
        any::<bool>(),
        prop::option::of(prop::sample::select(vec![80u16, 443, 8443])),
    )
        .prop_map(|(name, below, port)| {
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            format!("{}{name}{port}", if below { "*." } else { "" })
        })
}

fn hosts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(host(), 0..5)
}

fn names() -> impl Strategy<Value = Vec<String>> {
    let name = prop::sample::select(vec![
        "json",
        "json.decoder",
        "xml",
        "xml.etree",
        "xml.etree.ElementTree",
        "os",
        "re",
    ]);
    prop::collection::vec(name.prop_map(str::to_owned), 0..4)
}

fn trust() -> impl Strategy<Value = Trust> {
    prop::sample::select(vec![Trust::Restricted, Trust::Trusted])
}

fn tier() -> impl Strategy<Value = Tier> {
    prop::sample::select(vec![Tier::Process, Tier::Confined, Tier::Namespaces])
}

fn policy() -> impl Strategy<Value = Policy> {
    let modes = vec![NetworkMode::None, NetworkMode::Allowlist, NetworkMode::Open];
    let domains = prop_oneof![Just(vec!["*".to_owned()]), hosts()];
    let network =
        (prop::sample::select(modes), domains, any::<bool>()).prop_map(|(mode, domains, open_granted)| NetworkPolicy {
            mode,
            domains,
            open_granted,
        });
    let modules = (prop::option::of(names()), names()).prop_map(|(allow, deny)| ModulePolicy { allow, deny });
    let limits =
        (prop::option::of(1u64..500_000), prop::option::of(1u64..64)).prop_map(|(wall_ms, processes)| LimitCeilings {
            wall_ms,
            processes,
            ..LimitCeilings::default()
        });
    (trust(), network, modules, prop::option::of(names()), tier(), limits).prop_map(
        |(trust, network, modules, restricted_modules, minimum, limits)| Policy {
            profile: None,
            artifact_bytes: None,
            trust,
            network,
            modules,
            restricted_modules,
            minimum,
            limits,
        },
    )
}

fn rights() -> impl Strategy<Value = Rights> {
    let network = prop_oneof![
        Just(Network::None),
        Just(Network::Open),
        hosts().prop_map(Network::Allowlist)
    ];
    let modules = (prop::option::of(names()), names()).prop_map(|(allow, deny)| ModuleRules { allow, deny });
    (trust(), network, modules, tier()).prop_map(|(trust, network, modules, minimum)| Rights {
        trust,
        network,
        modules,
        minimum,
    })
}

/// Without the open network.
fn listing() -> impl Strategy<Value = Rights> {
    (rights(), hosts()).prop_map(|(rights, hosts)| Rights {
        network: Network::Allowlist(hosts),
        ..rights
    })
}

fn reach(network: &Network) -> HostSet {
    match network {
        Network::None => HostSet::of::<&str>(&[]),
        Network::Allowlist(hosts) => HostSet::of(hosts),
        Network::Open => HostSet::Any,
    }
}

/// Whether the first may no more than the second, module by module and host by host.
fn at_most(less: &Rights, more: &Rights) -> bool {
    const MODULES: [&str; 8] = [
        "json",
        "json.decoder",
        "xml",
        "xml.dom",
        "xml.etree",
        "xml.etree.ElementTree",
        "os",
        "re",
    ];
    less.trust <= more.trust
        && less.minimum >= more.minimum
        && reach(&more.network).covers(&reach(&less.network))
        && MODULES
            .iter()
            .all(|name| !less.modules.admit(name) || more.modules.admit(name))
}

/// What is said in several ways, in one.
fn canonical(rights: &Rights) -> Rights {
    Policy {
        network: NetworkPolicy {
            open_granted: true,
            ..NetworkPolicy::default()
        },
        ..Policy::default()
    }
    .restrict(&Holder::Platform, rights, &Limits::default())
    .rights
}

fn below(policies: &[&Policy], rights: &Rights) -> (Rights, Limits) {
    policies
        .iter()
        .fold((rights.clone(), Limits::default()), |(rights, limits), policy| {
            let restricted = policy.restrict(&Holder::Platform, &rights, &limits);
            (restricted.rights, restricted.limits)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_exceeds_any_ceiling_in_any_order(a in policy(), b in policy(), rights in rights()) {
        let (result, limits) = below(&[&a, &b], &rights);
        prop_assert!(at_most(&result, &rights));
        for policy in [&a, &b] {
            prop_assert!(result.trust <= policy.trust && result.minimum >= policy.minimum);
            prop_assert!(HostSet::of(&policy.network.domains).covers(&reach(&result.network)));
            if result.network == Network::Open {
                prop_assert!(policy.network.open_granted && policy.network.mode == NetworkMode::Open);
            }
            if policy.network.mode == NetworkMode::None || result.trust == Trust::Restricted {
                prop_assert_eq!(&result.network, &Network::None);
            }
            let rules = ModuleRules { allow: policy.modules.allow.clone(), deny: policy.modules.deny.clone() };
            for name in ["json", "json.decoder", "xml.etree", "xml.dom", "os"] {
                prop_assert!(!result.modules.admit(name) || rules.admit(name), "{name}");
            }
            prop_assert!(limits.wall_ms <= policy.limits.wall_ms.unwrap_or(u64::MAX));
            prop_assert!(limits.processes <= policy.limits.processes.unwrap_or(u64::MAX));
        }
        prop_assert_eq!(&below(&[&b, &a], &rights), &(result.clone(), limits.clone()), "the order doesn't matter");
        prop_assert_eq!(&below(&[&a, &b, &a, &b], &rights), &(result, limits), "nor does how often");
    }

    #[test]
    fn a_narrower_policy_gives_no_more(policy in policy(), other in policy(), rights in rights()) {
        // `narrower` is below `policy` by construction: each of its members is that of the smaller one.
        let (ours, theirs) = (HostSet::of(&policy.network.domains), HostSet::of(&other.network.domains));
        let rules = |policy: &Policy| ModuleRules { allow: policy.modules.allow.clone(), deny: policy.modules.deny.clone() };
        let met = rules(&policy).meet(&rules(&other));
        let narrower = Policy {
            profile: None,
            artifact_bytes: None,
            trust: policy.trust.min(other.trust),
            network: NetworkPolicy {
                mode: policy.network.mode.min(other.network.mode),
                domains: ours.meet(&theirs).patterns(),
                open_granted: policy.network.open_granted && other.network.open_granted,
            },
            modules: ModulePolicy { allow: met.allow, deny: met.deny },
            restricted_modules: policy.restricted_modules.clone(),
            minimum: policy.minimum.max(other.minimum),
            limits: policy.limits.clone(),
        };
        let (less, _) = below(&[&narrower], &rights);
        let (more, _) = below(&[&policy], &rights);
        prop_assert!(at_most(&less, &more), "{less:?} {more:?}");
        prop_assert!(narrower.widens(&policy).is_empty(), "{:?}", narrower.widens(&policy));
        if policy.widens(&other).is_empty() && policy.network.open_granted {
            prop_assert!(other.network.open_granted);
        }
    }

    /// With the open network apart, which is given whole or not at all, whoever declares less gets no more.
    #[test]
    fn less_declared_gives_no_more(policy in policy(), a in listing(), b in listing()) {
        let less = Rights {
            trust: a.trust.min(b.trust),
            network: match reach(&a.network).meet(&reach(&b.network)).patterns() {
                hosts if hosts.is_empty() => Network::None,
                hosts => Network::Allowlist(hosts),
            },
            modules: a.modules.meet(&b.modules),
            minimum: a.minimum.max(b.minimum),
        };
        prop_assert!(at_most(&below(&[&policy], &less).0, &below(&[&policy], &a).0));
    }

    #[test]
    fn what_is_not_restricted_stays(rights in rights()) {
        let same = canonical(&rights);
        prop_assert_eq!(&canonical(&same), &same);
        if rights.trust == Trust::Trusted {
            prop_assert_eq!(reach(&same.network), reach(&rights.network));
        }
        let settled = settle(&same, &[None, Some(&["json".to_owned(), "os".to_owned()])]);
        prop_assert!(at_most(&settled, &same));
        if settled.trust == Trust::Restricted {
            // The default list, and of that what the second allows.
            prop_assert!(!settled.modules.admit("os") && !settled.modules.admit("re"));
            prop_assert_eq!(&settled.network, &Network::None);
        }
    }
}

// ── through the API ────────────────────────────────────────────────────────────────────────────────────────────────────

async fn ask(app: &TestApp, person: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    let request = app.request(method, path).person(person).organization("contoso");
    match body {
        Some(body) => request.json(&body),
        None => request,
    }
    .send()
    .await
}

/// An application whose workflow and data provider declare these hosts.
async fn declaring(network: &[&str]) -> TestApp {
    let app = TestApp::start().await;
    app.scripted.describes(BundleDescription {
        modules: vec![json!({
            "module": "workflows.hello",
            "path": "workspace/workflows/hello.py",
            "workflows": [{"name": WORKFLOW, "function": "hello", "line": 7, "network": network, "timeout_seconds": 120.0}],
            "data_providers": [{"name": "departments", "function": "departments", "line": 9, "network": network}],
        })],
        files: 1,
        ..BundleDescription::default()
    });
    app
}

async fn run(app: &TestApp) -> Answer {
    ask(app, "ann", "POST", "/api/workflows/hello/execute", Some(json!({}))).await
}

#[tokio::test]
async fn a_declaration_that_a_policy_refuses_is_not_started() {
    let app = declaring(&["api.example.com", "files.example.org", "*.example.net:8443"]).await;
    assert_eq!(run(&app).await.status, 200, "nobody has written a policy");

    let policy = json!({"network": {"domains": ["*.example.com", "*.example.net:8443"]}});
    let answer = ask(&app, "ann", "PUT", "/api/policy", Some(policy)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let refused = run(&app).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "policy_refused"),
        "{}",
        refused.text()
    );
    let errors = refused.json()["errors"].clone();
    assert_eq!(errors.as_array().unwrap().len(), 1, "{errors}");
    assert_eq!(errors[0]["pointer"], "workspace/workflows/hello.py:7:1");
    assert_eq!(errors[0]["code"], "domain_not_allowed");
    let message = errors[0]["message"].as_str().unwrap();
    assert_eq!(
        message,
        "`files.example.org` is not among the domains that Contoso Ltd allows"
    );
    assert!(
        errors[0]["hint"]
            .as_str()
            .unwrap()
            .contains("--organization contoso --allow-domain files.example.org")
    );
    let provided = ask(&app, "ann", "GET", "/api/data-providers/departments", None).await;
    assert_eq!(provided.code(), "policy_refused", "{}", provided.text());
    let shown = ask(&app, "ann", "GET", "/api/workflows/hello", None).await.json();
    assert_eq!(shown["refused"], errors, "the catalog says so too");
    let effective = ask(&app, "cleo", "GET", "/api/policy/effective?workflow=hello", None)
        .await
        .json();
    assert_eq!(effective["startable"], false);
    assert_eq!(
        effective["rights"]["network"],
        json!({"mode": "allowlist", "hosts": ["*.example.net:8443", "api.example.com"]})
    );
    assert_eq!(effective["reasons"][0]["policy"], "organization");

    // The platform's refusal comes beside it, each with its own remedy.
    let platform = json!({"network": {"domains": ["*.example.org"], "openGranted": true}, "limits": {"wallMs": 1000}});
    let answer = ask(&app, "eve", "PUT", "/api/platform/policy", Some(platform)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let errors = run(&app).await.json()["errors"].clone();
    let who: Vec<_> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        who,
        [
            "`api.example.com` is not among the domains that the platform allows",
            "`*.example.net:8443` is not among the domains that the platform allows",
            "`files.example.org` is not among the domains that Contoso Ltd allows",
        ]
    );
    // Both of one host, at once.
    let platform = json!({"network": {"domains": ["nowhere.example"]}});
    ask(&app, "eve", "PUT", "/api/platform/policy", Some(platform)).await;
    let errors = run(&app).await.json()["errors"].clone();
    let whose: Vec<_> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["message"].as_str().unwrap())
        .filter(|message| message.starts_with("`files"))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        whose,
        [
            "`files.example.org` is not among the domains that the platform allows",
            "`files.example.org` is not among the domains that Contoso Ltd allows",
        ]
    );
    let scope = operator_in(&operator(), &"contoso".parse::<OrgId>().unwrap());
    let query = AuditQuery {
        limit: 100,
        ..AuditQuery::default()
    };
    let records = app.cx.audit.list(&scope, query).await.unwrap().items;
    let events: Vec<_> = records.iter().map(|entry| entry.plain.event.as_str()).collect();
    assert!(
        events.contains(&"policy.changed") && events.contains(&"policy.refused"),
        "{events:?}"
    );
    let changed = records
        .iter()
        .find(|entry| entry.plain.event == "policy.changed")
        .unwrap();
    assert_eq!(
        changed.plain.changes.as_ref().unwrap()["network"]["to"]["domains"],
        json!(["*.example.com", "*.example.net:8443"])
    );
}

#[tokio::test]
async fn a_run_shows_what_its_step_may_and_limits_are_lowered() {
    let app = declaring(&["api.example.com"]).await;
    let policy = json!({"minimum": "process", "limits": {"wallMs": 9_000}});
    ask(&app, "ann", "PUT", "/api/policy", Some(policy)).await;
    let answer = run(&app).await.json();
    let rights = json!({"trust": "trusted", "network": {"mode": "allowlist", "hosts": ["api.example.com"]},
        "minimum": "process", "modules": {"allow": null, "deny": []}});
    assert_eq!(
        answer["steps"],
        json!([{"id": "main", "kind": "python", "status": "succeeded", "rights": rights}])
    );
    let steps = ask(&app, "ann", "GET", answer["links"]["steps"].as_str().unwrap(), None)
        .await
        .json();
    assert_eq!(steps["items"][0]["rights"], rights);
    let asked = app.scripted.asked();
    assert_eq!(asked.last().unwrap().limits.wall_ms, 9_000);
    let effective = ask(&app, "ann", "GET", "/api/policy/effective?workflow=hello", None)
        .await
        .json();
    assert_eq!(
        (&effective["startable"], &effective["reasons"][0]["code"]),
        (&json!(true), &json!("limit_lowered"))
    );
    assert_eq!(
        effective["reasons"][0]["message"],
        "`wallMs` is 9000 and not 120000: Contoso Ltd allows no more"
    );
}

/// Trust is lowered and not refused; what restricted code imports is the list, and it has no network.
#[tokio::test]
async fn an_organization_whose_code_is_not_trusted() {
    let app = declaring(&[]).await;
    let policy = json!({"trust": "restricted", "restrictedModules": ["json", "os"]});
    ask(&app, "eve", "PUT", "/api/policy", Some(policy)).await;
    assert_eq!(run(&app).await.status, 200);
    let asked = app.scripted.asked();
    let rights = &asked.last().unwrap().rights;
    assert_eq!((rights.trust, &rights.network), (Trust::Restricted, &Network::None));
    assert_eq!(
        rights.modules.allow.as_deref(),
        Some(&["json".to_owned()][..]),
        "below the platform's list"
    );

    let app = declaring(&["api.example.com"]).await;
    ask(&app, "eve", "PUT", "/api/policy", Some(json!({"trust": "restricted"}))).await;
    let refused = run(&app).await.json();
    assert_eq!(refused["errors"][0]["code"], "network_not_allowed", "{refused}");
}

#[tokio::test]
async fn the_open_network_is_granted_by_a_platform_administrator_only() {
    let app = declaring(&["*"]).await;
    let refused = run(&app).await.json();
    assert_eq!(refused["errors"][0]["code"], "open_not_granted", "{refused}");
    let grant = json!({"network": {"openGranted": true}});
    // ann administers contoso, and nothing else.
    let answer = ask(&app, "ann", "PUT", "/api/policy", Some(grant.clone())).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "policy_widened"));
    assert_eq!(answer.json()["errors"][0]["pointer"], "/network/openGranted");
    let key = app
        .request("PUT", "/api/policy")
        .key(DEVELOPMENT_KEY)
        .organization("contoso")
        .json(&grant);
    assert_eq!(key.send().await.code(), "policy_widened", "a key is no administrator");
    assert_eq!(
        ask(&app, "eve", "PUT", "/api/policy", Some(grant.clone())).await.status,
        200
    );
    let answer = run(&app).await.json();
    assert_eq!(
        answer["steps"][0]["rights"]["network"],
        json!({"mode": "open", "hosts": []})
    );
    // What was given may stay, and may be given back, by whoever administers the organization.
    let narrower =
        json!({"network": {"openGranted": true}, "modules": {"deny": ["pickle"]}, "limits": {"processes": 4}});
    assert_eq!(ask(&app, "ann", "PUT", "/api/policy", Some(narrower)).await.status, 200);
    let wider = json!({"limits": {"processes": 8}});
    let answer = ask(&app, "ann", "PUT", "/api/policy", Some(wider)).await.json();
    assert_eq!(answer["errors"][0]["pointer"], "/modules/deny", "{answer}");
    assert_eq!(
        ask(&app, "ann", "GET", "/api/platform/policy", None).await.code(),
        "not_permitted"
    );
    assert_eq!(
        ask(&app, "ann", "PUT", "/api/platform/policy", Some(json!({})))
            .await
            .code(),
        "not_permitted"
    );
    let platform = json!({"network": {"openGranted": false}});
    assert_eq!(
        ask(&app, "eve", "PUT", "/api/platform/policy", Some(platform))
            .await
            .status,
        200
    );
    assert_eq!(
        run(&app).await.json()["errors"][0]["message"],
        "the platform does not grant the open network (`*`)"
    );
}

#[tokio::test]
async fn a_policy_is_replaced_only_as_it_was_read() {
    let app = TestApp::start().await;
    let first = ask(&app, "ann", "GET", "/api/policy", None).await;
    let tag = first.header("etag").to_owned();
    assert_eq!(first.json(), serde_json::to_value(Policy::default()).unwrap());
    let put = |body: Value, tag: &str| {
        let request = app.request("PUT", "/api/policy").person("ann").organization("contoso");
        request.header("if-match", tag).json(&body).send()
    };
    let written = put(json!({"limits": {"wallMs": 5_000}}), &tag).await;
    assert_eq!(written.status, 200);
    assert_ne!(written.header("etag"), tag);
    let late = put(json!({"limits": {"wallMs": 6_000}}), &tag).await;
    assert_eq!((late.status, late.code().as_str()), (412, "policy_changed"));
    assert_eq!(
        put(written.json(), written.header("etag")).await.status,
        200,
        "what was read can be sent"
    );
    assert_eq!(put(json!({}), "W/abc").await.code(), "parameter_invalid");
    let empty = app
        .request("PUT", "/api/policy")
        .person("ann")
        .organization("contoso")
        .send()
        .await;
    assert_eq!(empty.code(), "policy_invalid", "no body gives nothing back");
    let wrong = put(
        json!({"trust": "blind", "network": {"domains": ["https://a.example"]}, "x": 1}),
        "*",
    )
    .await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "policy_invalid"));
    assert_eq!(wrong.json()["errors"].as_array().unwrap().len(), 3, "{}", wrong.text());
}

/// A policy that was narrowed after the run began counts for its attempts; one that was widened gives them nothing.
#[tokio::test]
async fn a_policy_counts_again_at_every_attempt() {
    let app = declaring(&["api.example.com"]).await;
    let pending = app
        .request("POST", "/api/workflows/hello/execute")
        .person("ann")
        .organization("contoso");
    let pending = pending.header("prefer", "respond-async").json(&json!({})).send().await;
    assert_eq!(pending.status, 202, "{}", pending.text());
    let run = pending.json()["runId"].as_str().unwrap().to_owned();
    let narrower = json!({"network": {"mode": "none"}, "limits": {"wallMs": 7_000}});
    assert_eq!(ask(&app, "ann", "PUT", "/api/policy", Some(narrower)).await.status, 200);
    let scope = operator_in(&operator(), &"contoso".parse::<OrgId>().unwrap());
    let reference = weft::tenancy::RunRef {
        org: scope.org().clone(),
        run: run.parse().unwrap(),
    };
    weft::usecase::drive_run::continue_run(&app.cx, &reference, app.cx.clock.now())
        .await
        .unwrap();
    let ended = async {
        loop {
            let shown = ask(&app, "ann", "GET", &format!("/api/runs/{run}"), None).await.json();
            if shown["status"] == "succeeded" {
                return shown;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let shown = tokio::time::timeout(std::time::Duration::from_secs(30), ended)
        .await
        .unwrap();
    assert_eq!(
        shown["steps"][0]["rights"]["network"]["mode"], "allowlist",
        "the plan stays as it was"
    );
    let asked = app.scripted.asked();
    assert_eq!(asked.last().unwrap().rights.network, Network::None);
    assert_eq!(asked.last().unwrap().limits.wall_ms, 7_000);
    let log = ask(&app, "ann", "GET", &format!("/api/runs/{run}/logs"), None)
        .await
        .text();
    assert!(
        log.contains("a policy was changed since the run began: contoso allows its steps no network"),
        "{log}"
    );
}

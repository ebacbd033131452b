//! Every kind of credential × every way in × every organization header, as two tables that are reviewed as files, and the
//! proof that the product of both holds nothing else. Over the embedded store in memory.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use weft::authn::{
    Admission, Attempted, Authenticator, Code, CredentialKind, LookedUp, MAX_KEY_BYTES, MAX_PRINCIPAL_BYTES,
    PrincipalSource, Refusal, Request, RequestFacts, Settings, SourceSettings, TrustSettings, decide, needed,
    read_client_principal, requested_organization, trust,
};
use weft::authz::{Caller, KeyScope, Principal, Role};
use weft::clock::{Clock, Entropy, ManualClock};
use weft::domain::{Identity, KeyId, Secret, Timestamp};
use weft::error::Kind;
use weft::store::key::PLATFORM_TABLES;
use weft::store::port::Ports;
use weft::store::repo::identity::{Identities, NewOrganization, NewUser};
use weft::store::repo::keys::{self, Created, Keys, NewKey};
use weft::tenancy::{PlatformScope, operator, operator_in};

const START: i64 = 1_795_219_200_000;
const TENANT: &str = "99999999-8888-7777-6666-555555555555";

/// One header or the query, in the order in which a request carries them.
type Sent = Vec<(&'static str, String)>;

/// A store in memory with people, organizations and keys.
struct World {
    identities: Arc<Identities>,
    keys: Arc<Keys>,
    clock: Arc<ManualClock>,
    good: String,
    contoso_only: String,
    expired: String,
    revoked: String,
    rotated: String,
    development: String,
}

/// Prepared ports over a new store in memory.
pub async fn ports(clock: Arc<dyn Clock>) -> Ports {
    let ports = weft::store::sqlite::open(None, clock).unwrap();
    for table in PLATFORM_TABLES {
        ports.tables.create_table(&table.name()).await.unwrap();
    }
    ports
}

pub async fn make_key(keys: &Keys, platform: &PlatformScope, new: NewKey) -> Result<Created, keys::Error> {
    let created = keys.prepare(platform, new)?;
    keys.create(platform, &created).await?;
    Ok(created)
}

pub async fn rotate_key(
    keys: &Keys,
    platform: &PlatformScope,
    id: &KeyId,
    overlap: Duration,
) -> Result<Created, keys::Error> {
    let successor = keys.prepare_successor(platform, id).await?;
    keys.rotate(platform, id, &successor, overlap).await?;
    Ok(successor)
}

fn new_key(name: &str, organizations: &[&str]) -> NewKey {
    NewKey {
        name: name.parse().unwrap(),
        organizations: organizations.iter().map(|org| org.parse().unwrap()).collect(),
        scopes: vec![KeyScope::All],
        expires_at: None,
        development: false,
    }
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(START)));
        let entropy = Arc::new(Entropy::seeded(7));
        let ports = ports(clock.clone()).await;
        let identities = Arc::new(Identities::new(ports.clone(), clock.clone(), entropy.clone()));
        let keys = Arc::new(Keys::new(ports, clock.clone(), entropy));
        let platform = operator();

        for id in ["contoso", "fabrikam", "northwind", "bygone"] {
            let new = NewOrganization {
                id: Some(id.parse().unwrap()),
                name: id.parse().unwrap(),
                slug: None,
            };
            identities.create_organization(&platform, new).await.unwrap();
        }
        identities
            .set_organization_active(&platform, &"northwind".parse().unwrap(), false)
            .await
            .unwrap();
        for (name, administrator, active, organizations) in [
            ("ann", false, true, &["contoso", "northwind", "bygone"][..]),
            ("bob", false, false, &["contoso"][..]),
            ("carl", false, true, &[][..]),
            ("root", true, true, &[][..]),
        ] {
            let new = NewUser {
                id: None,
                name: name.parse().unwrap(),
                email: None,
                administrator,
            };
            let user = identities.create_user(&platform, new).await.unwrap();
            for identity in [
                Identity::new("swa:aad", name).unwrap(),
                Identity::new(&format!("entra:{TENANT}"), &object_of(name)).unwrap(),
            ] {
                identities.add_identity(&platform, &user.id, &identity).await.unwrap();
            }
            for org in organizations {
                let scope = operator_in(&platform, &org.parse().unwrap());
                identities.put_member(&scope, &user.id, Role::Manager).await.unwrap();
            }
            identities.set_user_active(&platform, &user.id, active).await.unwrap();
        }
        identities
            .delete_organization(&platform, &"bygone".parse().unwrap())
            .await
            .unwrap();

        let text = |secret: &Secret| secret.expose().to_owned();
        let good = make_key(&keys, &platform, new_key("good", &[])).await.unwrap();
        let contoso_only = make_key(&keys, &platform, new_key("contoso only", &["contoso"]))
            .await
            .unwrap();
        let revoked = make_key(&keys, &platform, new_key("revoked", &[])).await.unwrap();
        keys.revoke(&platform, &revoked.record.id).await.unwrap();
        let rotated = make_key(&keys, &platform, new_key("rotated", &[])).await.unwrap();
        rotate_key(&keys, &platform, &rotated.record.id, Duration::from_secs(3600))
            .await
            .unwrap();
        let expiring = NewKey {
            expires_at: Some(clock.now().plus(Duration::from_secs(60))),
            ..new_key("expired", &[])
        };
        let expired = make_key(&keys, &platform, expiring).await.unwrap();
        let development = Secret::presented("development");
        let for_development = NewKey {
            development: true,
            ..new_key("development", &[])
        };
        keys.ensure(&platform, &development, for_development).await.unwrap();
        clock.advance(Duration::from_secs(60));

        Self {
            identities,
            keys,
            clock,
            good: text(&good.secret),
            contoso_only: text(&contoso_only.secret),
            expired: text(&expired.secret),
            revoked: text(&revoked.secret),
            rotated: text(&rotated.secret),
            development: text(&development),
        }
    }

    fn authenticator(&self, settings: TrustSettings) -> Authenticator {
        let settings = Settings {
            trust: settings,
            source: SourceSettings::default(),
        };
        Authenticator::new(self.identities.clone(), self.keys.clone(), settings, self.clock.clone())
    }

    /// Every kind of credential.
    fn credentials(&self) -> Vec<(String, Sent)> {
        let key = |text: &str| ("x-functions-key", text.to_owned());
        let query = |text: &str| ("?", format!("code={text}"));
        let principal = |value: String| ("x-ms-client-principal", value);
        let good = &self.good;
        let mut all: Vec<(String, Sent)> = vec![
            ("nothing".into(), vec![]),
            ("only X-User-Id".into(), vec![("x-user-id", "ann".into())]),
            (
                "only Authorization".into(),
                vec![("authorization", "Bearer abc".into())],
            ),
            (
                "only companions of a principal".into(),
                vec![("x-ms-client-principal-id", "ann".into())],
            ),
            ("key good, header".into(), vec![key(good)]),
            ("key good, query".into(), vec![query(good)]),
            ("key good, query, CODE".into(), vec![("?", format!("x=1&CODE={good}"))]),
            ("key good, both the same".into(), vec![key(good), query(good)]),
            (
                "key good, both different".into(),
                vec![key(good), query(&self.contoso_only)],
            ),
            (
                "key good in header, bad in query".into(),
                vec![key(good), query("wrong")],
            ),
            (
                "key bad in header, good in query".into(),
                vec![key("wrong"), query(good)],
            ),
            ("key good, header twice".into(), vec![key(good), key(good)]),
            (
                "key good, query twice".into(),
                vec![("?", format!("code={good}&code={good}"))],
            ),
            (
                "key good, query twice, Code".into(),
                vec![("?", format!("code={good}&Code={good}"))],
            ),
            ("key empty, header".into(), vec![key("")]),
            ("key empty, query".into(), vec![query("")]),
            (
                "key unknown".into(),
                vec![key("weft_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")],
            ),
            ("key good, other case".into(), vec![key(&good.to_uppercase())]),
            ("key's hash".into(), vec![key(&Secret::presented(good.as_str()).hash())]),
            ("key expired".into(), vec![key(&self.expired)]),
            ("key revoked".into(), vec![key(&self.revoked)]),
            ("key rotated, in its overlap".into(), vec![key(&self.rotated)]),
            ("key of one organization".into(), vec![key(&self.contoso_only)]),
            ("key too long".into(), vec![key(&"k".repeat(MAX_KEY_BYTES + 1))]),
            (
                "key too long, query".into(),
                vec![query(&"k".repeat(MAX_KEY_BYTES + 1))],
            ),
            ("key for development, header".into(), vec![key(&self.development)]),
            ("key for development, query".into(), vec![query(&self.development)]),
            (
                "key good, X-User-Id".into(),
                vec![key(good), ("x-user-id", "ann".into())],
            ),
            (
                "key good, X-User-Id empty".into(),
                vec![key(good), ("x-user-id", String::new())],
            ),
            (
                "key good, X-User-Id too long".into(),
                vec![key(good), ("x-user-id", "u".repeat(129))],
            ),
            (
                "key good, X-User-Id twice".into(),
                vec![key(good), ("x-user-id", "a".into()), ("x-user-id", "b".into())],
            ),
            (
                "key good, X-User-Id not ASCII".into(),
                vec![key(good), ("x-user-id", "ä".into())],
            ),
            (
                "key bad, X-User-Id twice".into(),
                vec![key("x"), ("x-user-id", "a".into()), ("x-user-id", "b".into())],
            ),
        ];
        for name in ["ann", "bob", "carl", "root", "nobody"] {
            all.push((format!("swa {name}"), vec![principal(swa(name))]));
            all.push((format!("easyauth {name}"), vec![principal(easyauth(name))]));
        }
        all.extend([
            ("easyauth ann of another tenant".into(), vec![principal(easyauth_of("ann", &object_of("tenant")))]),
            ("easyauth ann, with her e-mail as subject".into(), vec![principal(encoded(&serde_json::json!({
                "auth_typ": "google", "claims": [{"typ": "sub", "val": "ann@example.com"}]
            })))]),
            ("principal of both shapes".into(), vec![principal(encoded(&serde_json::json!({
                "identityProvider": "aad", "userId": "ann", "userRoles": ["authenticated"], "auth_typ": "aad", "claims": []
            })))]),
            ("principal empty".into(), vec![principal(String::new())]),
            ("principal not base64".into(), vec![principal("!!!not-base64".into())]),
            ("principal an array".into(), vec![principal("W10=".into())]),
            ("principal incomplete".into(), vec![principal("eyJpZGVudGl0eVByb3ZpZGVyIjoiYWFkIn0=".into())]),
            ("principal of a wrong type".into(), vec![principal("eyJhdXRoX3R5cCI6MX0=".into())]),
            ("principal too large".into(), vec![principal("A".repeat(MAX_PRINCIPAL_BYTES + 4))]),
            ("principal twice".into(), vec![principal(swa("ann")), principal(swa("ann"))]),
            ("principal not ASCII".into(), vec![principal("ä".into())]),
            ("key good, principal good".into(), vec![key(good), principal(swa("ann"))]),
            ("key good, principal malformed".into(), vec![key(good), principal("!".into())]),
            ("key good, principal twice".into(), vec![key(good), principal(swa("ann")), principal(swa("root"))]),
            ("key bad, principal good".into(), vec![key("wrong"), principal(swa("ann"))]),
            ("key empty, principal good".into(), vec![key(""), principal(easyauth("ann"))]),
            ("key twice, principal good".into(), vec![key(good), key(good), principal(swa("ann"))]),
            ("key for development, principal good".into(), vec![key(&self.development), principal(swa("ann"))]),
        ]);
        all
    }
}

fn encoded(value: &serde_json::Value) -> String {
    STANDARD.encode(value.to_string())
}

fn swa(user: &str) -> String {
    encoded(&serde_json::json!({
        "identityProvider": "aad", "userId": user, "userDetails": "x@example.com", "userRoles": ["anonymous", "authenticated"]
    }))
}

fn object_of(user: &str) -> String {
    let digits = weft::domain::sha256_hex(user.as_bytes());
    format!(
        "{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..32]
    )
}

fn easyauth(user: &str) -> String {
    easyauth_of(user, TENANT)
}

fn easyauth_of(user: &str, tenant: &str) -> String {
    encoded(&serde_json::json!({
        "auth_typ": "aad", "name_typ": "n", "role_typ": "r",
        "claims": [{"typ": "tid", "val": tenant}, {"typ": "oid", "val": object_of(user)}, {"typ": "email", "val": "x@example.com"}]
    }))
}

/// A way in: what the operator says, and what the connection looks like.
struct Way {
    name: &'static str,
    settings: TrustSettings,
    listener_loopback: bool,
    peer: &'static str,
    headers: &'static [(&'static str, &'static str)],
}

fn ways() -> Vec<Way> {
    let azure = TrustSettings {
        on_azure: true,
        website_auth_enabled: true,
        ..TrustSettings::default()
    };
    let development = TrustSettings {
        development: true,
        ..TrustSettings::default()
    };
    let local: &[_] = &[("host", "localhost:7071")];
    let behind: &[_] = &[("host", "127.0.0.1:4711"), ("x-forwarded-host", "weft.example")];
    let way = |name, settings, headers| Way {
        name,
        settings,
        listener_loopback: true,
        peer: "127.0.0.1",
        headers,
    };
    let swa = TrustSettings {
        principal_source: PrincipalSource::Swa,
        ..azure
    };
    vec![
        way("none", azure, behind),
        way("swa", swa, behind),
        way(
            "easyauth",
            TrustSettings {
                principal_source: PrincipalSource::Easyauth,
                ..azure
            },
            behind,
        ),
        way(
            "swa, auth off",
            TrustSettings {
                website_auth_enabled: false,
                ..swa
            },
            behind,
        ),
        way("dev", development, local),
        way("dev, other host", development, &[("host", "weft.example")]),
        way("dev, forwarded", development, behind),
        way(
            "dev, both local",
            development,
            &[("host", "127.0.0.1"), ("x-forwarded-host", "localhost:7071")],
        ),
        Way {
            peer: "192.0.2.7",
            ..way("dev, other peer", development, local)
        },
        Way {
            listener_loopback: false,
            ..way("dev, open listener", development, local)
        },
        way(
            "dev on azure",
            TrustSettings {
                development: true,
                ..TrustSettings {
                    website_auth_enabled: false,
                    ..azure
                }
            },
            local,
        ),
        way("production", TrustSettings::default(), local),
    ]
}

fn facts(way: &Way, sent: &[(&'static str, String)], organization: &[&'static str]) -> RequestFacts {
    let mut headers = HeaderMap::new();
    let mut query = None;
    let fixed = way.headers.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let organization = organization
        .iter()
        .map(|value| ("x-organization-id", (*value).to_owned()));
    for (name, value) in fixed.chain(sent.iter().cloned()).chain(organization) {
        if name == "?" {
            query = Some(value);
        } else {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
    }
    let request = Request {
        method: "GET",
        path: "/api/runs",
        query: query.as_deref(),
        headers: &headers,
        peer: way.peer.parse().unwrap(),
        listener_loopback: way.listener_loopback,
        request_id: "req",
    };
    RequestFacts::read(&request, &SourceSettings::default())
}

fn status(kind: Kind) -> u16 {
    match kind {
        Kind::Invalid => 400,
        Kind::Unauthenticated => 401,
        Kind::Denied => 403,
        Kind::NotFound => 404,
        Kind::Unavailable => 503,
        other => panic!("{other:?} is not for authentication to say"),
    }
}

fn refused(refusal: &Refusal) -> String {
    assert_eq!(refusal.www_authenticate, refusal.kind == Kind::Unauthenticated);
    assert!(!refusal.detail.is_empty() && !refusal.hint.is_empty() && !refusal.audit.reason.is_empty());
    format!("{} {}", status(refusal.kind), refusal.code)
}

fn described(caller: &Caller) -> String {
    match &caller.principal {
        Principal::Service { name, claimed_user, .. } => {
            let claimed = claimed_user
                .as_ref()
                .map(|user| format!(" for {user}"))
                .unwrap_or_default();
            let also = caller
                .also_principal
                .as_ref()
                .map(|also| format!(" with ({also})"))
                .unwrap_or_default();
            format!("key `{name}`{claimed}{also}")
        }
        Principal::User {
            name,
            administrator: true,
            ..
        } => format!("administrator {name}"),
        Principal::User { name, .. } => format!("user {name}"),
        other => panic!("{other:?} can't come in by a request"),
    }
}

fn outcome(decision: &Result<Caller, Refusal>) -> String {
    decision.as_ref().map_or_else(refused, described)
}

#[tokio::test]
async fn every_credential_by_every_way_in() {
    let world = World::new().await;
    let mut table = String::new();
    for (name, sent) in world.credentials() {
        let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
        let ways = ways();
        for way in &ways {
            let decision = world
                .authenticator(way.settings)
                .authenticate(&facts(way, &sent, &[]))
                .await;
            let outcome = outcome(&decision);
            match groups.iter_mut().find(|(known, _)| *known == outcome) {
                Some((_, names)) => names.push(way.name),
                None => groups.push((outcome, vec![way.name])),
            }
        }
        let _ = writeln!(table, "{name}");
        for (outcome, names) in groups {
            let names = if names.len() == ways.len() {
                "every way in".to_owned()
            } else {
                names.join(" | ")
            };
            let _ = writeln!(table, "    {outcome:<32} {names}");
        }
    }
    insta::assert_snapshot!("credentials", table);
}

const ORGANIZATIONS: [(&str, &[&str]); 8] = [
    ("missing", &[]),
    ("malformed", &["Contoso!"]),
    ("twice", &["contoso", "contoso"]),
    ("unknown", &["nowhere"]),
    ("deleted", &["bygone"]),
    ("inactive", &["northwind"]),
    ("fabrikam", &["fabrikam"]),
    ("contoso", &["contoso"]),
];

async fn admitted(authenticator: &Authenticator, facts: &RequestFacts) -> String {
    let caller = match authenticator.authenticate(facts).await {
        Ok(caller) => caller,
        Err(refusal) => return refused(&refusal),
    };
    let requested = match requested_organization(facts) {
        Ok(requested) => requested,
        Err(refusal) => return refused(&refusal),
    };
    match authenticator.organization(&caller, &requested).await {
        Ok(admission) => {
            assert_eq!(admission.scope().org(), &requested);
            match admission {
                Admission::Member(scope) => format!("member, {}", scope.role().map_or("?", Role::as_str)),
                Admission::Key(_) => "key".into(),
                Admission::Crossing(scope) => format!("crossing, {}", scope.role().map_or("?", Role::as_str)),
            }
        }
        Err(refusal) => {
            assert_eq!(refusal.audit.organization.as_ref(), Some(&requested));
            refused(&refusal)
        }
    }
}

#[tokio::test]
async fn every_caller_in_every_organization() {
    let world = World::new().await;
    let ways = ways();
    let way = ways.iter().find(|way| way.name == "swa").unwrap();
    let authenticator = world.authenticator(way.settings);
    let mut table = String::new();
    for (caller, sent) in world.credentials() {
        if ![
            "key good, header",
            "key of one organization",
            "swa ann",
            "swa carl",
            "swa root",
            "swa bob",
        ]
        .contains(&caller.as_str())
        {
            continue;
        }
        for (header, values) in ORGANIZATIONS {
            let outcome = admitted(&authenticator, &facts(way, &sent, values)).await;
            let _ = writeln!(table, "{caller:<24} {header:<10} {outcome}");
        }
    }
    insta::assert_snapshot!("organizations", table);
}

/// The whole product: the organization header never changes who it is, a refusal of the credential comes before one of the
/// header, and nobody is admitted who isn't in one of the two tables.
#[tokio::test]
async fn the_product_holds_nothing_else() {
    let world = World::new().await;
    for way in ways() {
        let authenticator = world.authenticator(way.settings);
        for (name, sent) in world.credentials() {
            let alone = outcome(&authenticator.authenticate(&facts(&way, &sent, &[])).await);
            for (header, values) in ORGANIZATIONS {
                let facts = facts(&way, &sent, values);
                assert_eq!(outcome(&authenticator.authenticate(&facts).await), alone);
                let both = admitted(&authenticator, &facts).await;
                let at = format!("{} / {name} / {header}: {alone} → {both}", way.name);
                if alone.starts_with(|c: char| c.is_ascii_digit()) {
                    assert_eq!(both, alone, "{at}");
                    continue;
                }
                let want = match (header, alone.as_str()) {
                    ("missing", _) => "400 organization_header_missing",
                    ("malformed", _) => "400 organization_header_malformed",
                    ("twice", _) => "400 organization_header_duplicated",
                    ("unknown" | "deleted" | "inactive" | "fabrikam", who) if who.starts_with("key `contoso only`") => {
                        "403 key_not_for_organization"
                    }
                    ("unknown" | "deleted", _) => "404 organization_not_found",
                    (_, "user carl") | ("fabrikam", "user ann") => "404 organization_not_found",
                    ("inactive", _) => "403 organization_inactive",
                    (_, who) if who.starts_with("key `") => "key",
                    ("contoso", "user ann") => "member, manager",
                    (_, "administrator root") => "crossing, administrator",
                    _ => panic!("{at}"),
                };
                assert_eq!(both, want, "{at}");
            }
        }
    }
}

#[test]
fn client_principals_as_in_the_corpus() {
    let cases: serde_json::Value = serde_json::from_str(include_str!("../golden/principals/cases.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        match read_client_principal(case["value"].as_str().unwrap()) {
            Ok(principal) => {
                assert_eq!(principal.shape.as_str(), case["shape"], "{name}");
                assert_eq!(principal.identity.issuer(), case["issuer"], "{name}");
                assert_eq!(principal.identity.subject(), case["subject"], "{name}");
            }
            Err(malformed) => assert_eq!(malformed.0, case["malformed"], "{name}"),
        }
    }
}

#[tokio::test]
async fn nobody_comes_in_while_storage_is_away() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(START)));
    let entropy = Arc::new(Entropy::seeded(1));
    // Without its tables the store can't answer.
    let ports = weft::store::sqlite::open(None, clock.clone()).unwrap();
    let identities = Arc::new(Identities::new(ports.clone(), clock.clone(), entropy.clone()));
    let keys = Arc::new(Keys::new(ports, clock.clone(), entropy));
    let ways = ways();
    let way = ways.iter().find(|way| way.name == "swa").unwrap();
    let settings = Settings {
        trust: way.settings,
        source: SourceSettings::default(),
    };
    let authenticator = Authenticator::new(identities, keys, settings, clock);
    for sent in [
        vec![("x-functions-key", "k".to_owned())],
        vec![("x-ms-client-principal", swa("ann"))],
    ] {
        let refusal = authenticator.authenticate(&facts(way, &sent, &[])).await.unwrap_err();
        assert_eq!(refused(&refusal), "503 authentication_unavailable");
        assert!(refusal.kind.retriable());
    }
}

#[tokio::test]
async fn no_credential_shows_in_what_is_printed() {
    let world = World::new().await;
    let way = &ways()[0];
    let sent = vec![
        ("x-functions-key", world.revoked.clone()),
        ("x-ms-client-principal", swa("ann")),
    ];
    let facts = facts(way, &sent, &[]);
    let refusal = world
        .authenticator(way.settings)
        .authenticate(&facts)
        .await
        .unwrap_err();
    assert_eq!(
        refusal.audit.key.as_ref().map(|(_, name)| name.as_str()),
        Some("revoked")
    );
    assert_eq!(refusal.audit.identity.as_deref(), Some("swa:aad ann"));
    let printed = format!(
        "{facts:?} {refusal:?} {refusal} {:?}",
        needed(&facts, &trust(&way.settings, &facts.way))
    );
    assert!(!printed.contains(&world.revoked));
    assert!(!printed.contains(&swa("ann")));
    assert!(!printed.contains(&Secret::presented(world.revoked.as_str()).hash()));
}

#[test]
fn codes_are_stable_and_differ() {
    let mut list = String::new();
    for code in Code::ALL {
        let refusal = Refusal::new(*code, Attempted::with(CredentialKind::None));
        assert!(
            code.as_str()
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        );
        let _ = writeln!(
            list,
            "{} {}",
            if code.kind() == Kind::Internal {
                500
            } else {
                status(refusal.kind)
            },
            refusal.code
        );
    }
    insta::assert_snapshot!("codes", list);
}

const NAMES: [&str; 9] = [
    "x-functions-key",
    "x-ms-client-principal",
    "x-ms-client-principal-id",
    "x-organization-id",
    "x-user-id",
    "host",
    "x-forwarded-host",
    "x-forwarded-for",
    "x-azure-functions-invocationid",
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..60);
    let json = "[{}\\[\\]\":,a-z0-9_]{0,40}";
    prop_oneof![
        bytes.clone(),
        bytes.prop_map(|bytes| STANDARD.encode(bytes).into_bytes()),
        json.prop_map(|text| STANDARD.encode(text).into_bytes()),
        Just(swa("ann").into_bytes()),
        Just(easyauth("ann").into_bytes()),
        Just(b"localhost".to_vec()),
        Just(b"contoso".to_vec()),
        "[ -~]{0,40}".prop_map(String::into_bytes),
    ]
}

proptest! {
    /// Whatever is sent: no panic, and nobody comes in whom nothing vouches for.
    #[test]
    fn random_requests_let_nobody_in(
        sent in proptest::collection::vec((0..NAMES.len(), value()), 0..6),
        query in proptest::option::of("[ -~]{0,60}"),
        settings in 0..12_usize,
        peer in any::<std::net::IpAddr>(),
        listener_loopback in any::<bool>(),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &sent {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.append(HeaderName::from_static(NAMES[*name]), value);
            }
        }
        let request = Request {
            method: "POST", path: "/api/x", query: query.as_deref(), headers: &headers, peer, listener_loopback,
            request_id: "r",
        };
        let facts = RequestFacts::read(&request, &SourceSettings::default());
        prop_assert!(facts.origin.address.len() <= 64);
        let _ = requested_organization(&facts);
        let trust = trust(&ways()[settings].settings, &facts.way);
        let _ = needed(&facts, &trust);
        let now = Timestamp::from_millis(START);

        // Nothing is known: nobody comes in, and no key means no service.
        prop_assert!(decide(&facts, &LookedUp::default(), &trust, now).is_err());

        // Somebody is known, as if every look-up found them: only a believed principal alone is enough.
        let person = weft::store::repo::identity::Person {
            id: weft::domain::UserId::generate(now, [0; 10]), name: "ann".into(), active: true, administrator: true,
        };
        let known = LookedUp { key: None, person: Some(person) };
        if let Ok(caller) = decide(&facts, &known, &trust, now) {
            prop_assert!(trust.any());
            prop_assert!(!headers.contains_key("x-functions-key"));
            prop_assert_eq!(headers.get_all("x-ms-client-principal").iter().count(), 1);
            let is_user = matches!(caller.principal, Principal::User { .. });
            prop_assert!(is_user);
        }
    }

    /// Reading a principal never panics, and an identity is always short and printable.
    #[test]
    fn random_principals_are_read_or_refused(bytes in value()) {
        if let Some(Ok(principal)) = std::str::from_utf8(&bytes).ok().map(read_client_principal) {
            let shown = principal.identity.to_string();
            prop_assert!(shown.chars().count() <= 513 && !shown.chars().any(char::is_control));
        }
    }
}

//! The key vault's store: the real client, pointed at a stand-in.
//!
//! **The vault here is a stand-in**, made from the documented contract of the REST API (api-version 2025-07-01): the
//! challenge of an unauthorized request, versions of a secret, pages, soft deletion with the name taken until it is brought
//! back or purged, and the bodies of 401, 403, 404, 409 and 429. What it does not do: certificates, attributes that expire
//! or disable, backup, networks. Nothing of it has been compared with a real vault by these tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::http::{AsyncRawResponse, HttpClient, Request, Transport};
use azure_core::time::{Duration, OffsetDateTime};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft::domain::{OrgId, Secret, Timestamp};
use weft::error::{Coded as _, Kind};
use weft::store::azure::Vault;
use weft::store::secret::{NewSecret, Presented, SecretRecord, SecretStore as _};
use weft::tenancy::{Scope, operator, operator_in};

const HOST: &str = "weft-test.vault.azure.net";
const TOKEN: &str = "stand-in-token";

#[derive(Default)]
struct State {
    /// Versions by name, the newest last.
    secrets: BTreeMap<String, Vec<Value>>,
    deleted: BTreeMap<String, Vec<Value>>,
    /// Method and path of each request.
    seen: Vec<String>,
    /// Answers that come before the usual ones.
    planned: Vec<(u16, Value)>,
}

#[derive(Clone, Default)]
struct StandIn(Arc<Mutex<State>>);

fn problem(status: u16, code: &str, inner: Option<&str>) -> (u16, Value) {
    let message = format!("the stand-in says {code}");
    (
        status,
        json!({"error": {"code": code, "message": message, "innererror": inner.map(|code| json!({"code": code}))}}),
    )
}

fn not_found() -> (u16, Value) {
    problem(404, "SecretNotFound", None)
}

impl StandIn {
    fn plan(&self, answers: &[(u16, Value)]) {
        self.0.lock().unwrap().planned.extend(answers.iter().cloned());
    }

    fn take_seen(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().seen)
    }

    fn answer(&self, method: &str, path: &str, query: &str, authorized: bool, body: &str) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        state.seen.push(format!("{method} {path}"));
        if !query.contains("api-version=2025-07-01") {
            return problem(400, "BadParameter", None);
        }
        if !authorized {
            // The client must not send a body before it knows who asks for a token.
            assert_eq!(body, "");
            return problem(401, "Unauthorized", None);
        }
        if !state.planned.is_empty() {
            return state.planned.remove(0);
        }
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["secrets"]) => {
                let from: usize = query.split("skip=").nth(1).map_or(0, |text| text.parse().unwrap());
                let all: Vec<_> = state.secrets.iter().skip(from).take(2).collect();
                let value: Vec<_> = all
                    .iter()
                    .map(|(name, versions)| {
                        let mut item = versions.last().unwrap().clone();
                        item.as_object_mut().unwrap().remove("value");
                        item["id"] = json!(format!("https://{HOST}/secrets/{name}"));
                        item
                    })
                    .collect();
                let next = (from + 2 < state.secrets.len())
                    .then(|| format!("https://{HOST}/secrets?api-version=2025-07-01&skip={}", from + 2));
                (200, json!({"value": value, "nextLink": next}))
            }
            ("GET", ["secrets", name]) => {
                let found = state.secrets.get(*name).and_then(|versions| versions.last());
                found.map_or_else(not_found, |secret| (200, secret.clone()))
            }
            ("PUT", ["secrets", name]) => {
                if state.deleted.contains_key(*name) {
                    return problem(409, "Conflict", Some("ObjectIsDeletedButRecoverable"));
                }
                let good = name.len() <= 127 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                let body: Value = serde_json::from_str(body).unwrap();
                let tags = body["tags"].as_object().cloned().unwrap_or_default();
                let fits = tags.len() <= 15 && tags.values().all(|tag| tag.as_str().unwrap().len() <= 256);
                if !good || !fits || body["value"].as_str().unwrap().len() > 25_600 {
                    return problem(400, "BadParameter", None);
                }
                let versions = state.secrets.entry((*name).to_owned()).or_default();
                let version = format!("{:032x}", versions.len() + 1);
                versions.push(json!({
                    "value": body["value"], "tags": tags, "id": format!("https://{HOST}/secrets/{name}/{version}"),
                    "attributes": {"enabled": true, "created": 1_790_000_000, "updated": 1_790_000_000, "recoverableDays": 90},
                }));
                (200, versions.last().unwrap().clone())
            }
            ("DELETE", ["secrets", name]) => match state.secrets.remove(*name) {
                None => not_found(),
                Some(versions) => {
                    let mut gone = versions.last().unwrap().clone();
                    gone["recoveryId"] = json!(format!("https://{HOST}/deletedsecrets/{name}"));
                    state.deleted.insert((*name).to_owned(), versions);
                    (200, gone)
                }
            },
            ("POST", ["deletedsecrets", name, "recover"]) => match state.deleted.remove(*name) {
                None => not_found(),
                Some(versions) => {
                    let back = versions.last().unwrap().clone();
                    state.secrets.insert((*name).to_owned(), versions);
                    (200, back)
                }
            },
            _ => problem(400, "BadParameter", None),
        }
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            let head = loop {
                if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                    break end + 4;
                }
                if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    return;
                }
            };
            let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
            let header = |name: &str| {
                let mut lines = text.lines().filter_map(|line| line.split_once(": "));
                lines
                    .find(|(known, _)| known.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.to_owned())
            };
            let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
            while bytes.len() < head + length {
                assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
            }
            let body = String::from_utf8(bytes[head..head + length].to_vec()).unwrap();
            bytes.drain(..head + length);
            let mut line = text.lines().next().unwrap().split(' ');
            let (method, target) = (line.next().unwrap(), line.next().unwrap());
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let authorized = header("authorization").as_deref() == Some(&format!("Bearer {TOKEN}"));
            let (status, answer) = self.answer(method, path, query, authorized, &body);
            let more = match status {
                401 => {
                    "WWW-Authenticate: Bearer authorization=\"https://login.microsoftonline.com/tenant\", \
                        resource=\"https://vault.azure.net\"\r\n"
                }
                429 => "Retry-After: 0\r\n",
                _ => "",
            };
            let answer = answer.to_string();
            let answer = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n{answer}",
                answer.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Sends what is for the vault to the stand-in, in clear: the client itself insists on https.
#[derive(Debug)]
struct Rerouted {
    client: reqwest::Client,
    port: u16,
}

#[async_trait]
impl HttpClient for Rerouted {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        assert_eq!(
            (request.url().scheme(), request.url().host_str()),
            ("https", Some(HOST))
        );
        let mut request = request.clone();
        let url = request.url_mut();
        url.set_scheme("http").unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.port)).unwrap();
        self.client.execute_request(&request).await
    }
}

#[derive(Debug)]
struct Token;

#[async_trait]
impl TokenCredential for Token {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, ["https://vault.azure.net/.default"]);
        Ok(AccessToken::new(TOKEN, OffsetDateTime::now_utc() + Duration::hours(1)))
    }
}

async fn vault() -> (StandIn, Vault) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stand_in = StandIn::default();
    let serving = stand_in.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serving.clone().serve(stream));
        }
    });
    let client = reqwest::Client::new();
    let transport = Transport::new(Arc::new(Rerouted { client, port }));
    let vault = Vault::new(&format!("https://{HOST}"), Arc::new(Token), &transport, true).unwrap();
    (stand_in, vault)
}

fn scope(organization: &str) -> Scope {
    let org: OrgId = organization.parse().unwrap();
    operator_in(&operator(), &org)
}

fn new(name: &str, value: &str, hosts: usize) -> NewSecret {
    NewSecret {
        record: SecretRecord {
            name: name.parse().unwrap(),
            hosts: (0..hosts)
                .map(|number| format!("host-{number}.a-rather-long-name.example.com"))
                .collect(),
            presented: Presented::Header("X-Key".into()),
            description: "for tests".into(),
            updated_at: Timestamp::from_millis(0),
            updated_by: "operator".into(),
        },
        value: Secret::value(value),
    }
}

#[tokio::test]
async fn secrets_are_kept_by_organization_with_what_is_told_of_them() {
    let (stand_in, vault) = vault().await;
    let (ours, theirs, platform) = (scope("contoso"), scope("fabrikam"), operator());
    let name = "API_KEY".parse().unwrap();
    assert!(vault.get((&ours).into(), &name).await.unwrap().is_none());
    assert_eq!(
        stand_in.take_seen(),
        ["GET /secrets/contoso--api-key/", "GET /secrets/contoso--api-key/"]
    );
    assert!(
        vault
            .put((&ours).into(), new("API_KEY", "tell-nobody", 30))
            .await
            .unwrap()
    );
    assert!(
        vault
            .put((&platform).into(), new("API_KEY", "of-the-platform", 0))
            .await
            .unwrap()
    );
    for (name, of) in [("B", &ours), ("C", &theirs)] {
        vault.put(of.into(), new(name, "some-value", 1)).await.unwrap();
    }
    let found = vault.get((&ours).into(), &name).await.unwrap().unwrap();
    assert_eq!(found.value.expose(), "tell-nobody");
    assert_eq!(
        (found.record.hosts.len(), found.record.presented.clone()),
        (30, Presented::Header("X-Key".into()))
    );
    assert_eq!(found.record.updated_at.to_string(), "2026-09-21T14:13:20.000Z");
    assert!(vault.get((&theirs).into(), &name).await.unwrap().is_none());
    let inherited = vault.get_inherited(&theirs, &name).await.unwrap().unwrap();
    assert_eq!(inherited.value.expose(), "of-the-platform");
    // Other names of the same secret, and the pages of the list.
    let listed = vault.list((&ours).into()).await.unwrap();
    let names: Vec<_> = listed.iter().map(|record| record.name.as_str()).collect();
    assert_eq!(names, ["API_KEY", "B"]);
    assert_eq!(vault.list((&platform).into()).await.unwrap().len(), 1);
    assert!(
        !vault
            .put((&ours).into(), new("api-key", "second-value", 0))
            .await
            .unwrap()
    );
    let found = vault.get((&ours).into(), &name).await.unwrap().unwrap();
    assert_eq!(
        (found.value.expose(), found.record.name.as_str()),
        ("second-value", "api-key")
    );
    assert!(!format!("{vault:?} {found:?}").contains("second"));
}

#[tokio::test]
async fn the_platform_s_prefix_is_no_organization_s() {
    let (_, vault) = vault().await;
    vault
        .put((&operator()).into(), new("API_KEY", "of-the-platform", 0))
        .await
        .unwrap();
    let impostor = scope("platform");
    assert!(
        vault
            .get((&impostor).into(), &"API_KEY".parse().unwrap())
            .await
            .unwrap()
            .is_none()
    );
    assert!(vault.list((&impostor).into()).await.unwrap().is_empty());
    assert!(vault.put((&impostor).into(), new("X", "some-value", 0)).await.is_err());
}

#[tokio::test]
async fn values_are_remembered_and_forgotten_when_they_change() {
    let (stand_in, vault) = vault().await;
    let ours = scope("contoso");
    let name = "API_KEY".parse().unwrap();
    vault
        .put((&ours).into(), new("API_KEY", "first-value", 0))
        .await
        .unwrap();
    vault.get((&ours).into(), &name).await.unwrap();
    stand_in.take_seen();
    for _ in 0..3 {
        assert!(vault.get((&ours).into(), &name).await.unwrap().is_some());
    }
    assert_eq!(stand_in.take_seen(), [] as [&str; 0]);
    // A deleted name is taken until it is brought back, which the store does by itself.
    assert!(vault.delete((&ours).into(), &name).await.unwrap());
    assert!(!vault.delete((&ours).into(), &name).await.unwrap());
    assert!(vault.get((&ours).into(), &name).await.unwrap().is_none());
    assert!(
        vault
            .put((&ours).into(), new("API_KEY", "second-value", 0))
            .await
            .unwrap()
    );
    let found = vault.get((&ours).into(), &name).await.unwrap().unwrap();
    assert_eq!(found.value.expose(), "second-value");
    assert!(
        stand_in
            .take_seen()
            .contains(&"POST /deletedsecrets/contoso--api-key/recover".to_owned())
    );
}

#[tokio::test]
async fn refusals_are_named_and_repeats_are_bounded() {
    let (stand_in, vault) = vault().await;
    let ours = scope("contoso");
    let name = "API_KEY".parse().unwrap();
    vault
        .put((&ours).into(), new("API_KEY", "tell-nobody", 0))
        .await
        .unwrap();
    let busy = problem(429, "Throttled", None);
    stand_in.plan(&[busy.clone(), busy.clone()]);
    assert!(vault.get((&ours).into(), &name).await.unwrap().is_some());
    vault
        .put((&ours).into(), new("API_KEY", "tell-nobody", 0))
        .await
        .unwrap();
    stand_in.take_seen();
    stand_in.plan(&vec![busy; 20]);
    let error = vault.get((&ours).into(), &name).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Throttled, "{error:?}");
    assert!((2..=4).contains(&stand_in.take_seen().len()));
    stand_in.0.lock().unwrap().planned.clear();
    stand_in.plan(&[problem(403, "Forbidden", Some("ForbiddenByRbac"))]);
    let error = vault.list((&ours).into()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Unavailable, "storage_forbidden"));
    assert!(!format!("{error:?}").contains("nobody"));
}

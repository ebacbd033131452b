//! Where `weft publish` and `weft bundles` work: on the data that the settings name, or on another installation by its API.
//! Both answer the same JSON.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use reqwest::{Method, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Failure, Places, output, prepare};
use crate::authz::Origin;
use crate::boot::{self, Base};
use crate::config::Config;
use crate::domain::BundleDigest;
use crate::error::Finding;
use crate::http::api::bundles::{ActivationView, BundleAnswer, BundleView, DiffAnswer, FileView, PrunedAnswer};
use crate::tenancy::{self, PlatformScope};
use crate::usecase::Context;
use crate::usecase::bundle::{self, Active, Side};

/// How long an answer of another installation may take: it may have to fetch the bundle and to look at what is in it.
const PATIENCE: Duration = Duration::from_secs(230);
/// How many activations are shown.
pub(super) const HISTORY: usize = 20;

/// Flags that say where.
#[derive(Debug, Clone, Args)]
pub(super) struct At {
    /// Address of the installation, as `https://weft.example`; its key is `WEFT_KEY`. Without one, the data that the settings name
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    #[command(flatten)]
    pub(super) places: Places,
}

/// Where.
pub(super) enum Site {
    /// On data that this process has opened.
    Here(Box<Here>),
    /// On another installation.
    There(There),
}

pub(super) struct Here {
    base: Base,
    cx: Arc<Context>,
    platform: PlatformScope,
    origin: Origin,
}

pub(super) struct There {
    client: reqwest::Client,
    server: String,
    key: String,
}

impl At {
    /// The settings, with what the flags say.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let mut config = prepare(&self.places)?;
        if let Some(server) = &self.server {
            let mut environment = self.places.environment();
            environment.set(&crate::config::env_var::WEFT_SERVER, server.clone(), "--server");
            config = super::load(&environment)?;
        }
        Ok(config)
    }
}

impl Site {
    /// Opens it.
    pub(super) async fn open(config: Config) -> Result<Self, Failure> {
        if let Some(server) = config.remote.server.clone() {
            let key = config.remote.key.as_ref().ok_or_else(|| {
                Failure::new(format!("no key for `{server}` is known"))
                    .hint("set `WEFT_KEY` to a function key with the scopes `bundle:create` and `bundle:modify`")
            })?;
            let client = reqwest::Client::builder()
                .timeout(PATIENCE)
                // A key goes to nobody but whom it was meant for.
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| Failure::new(output::chain(&error)))?;
            return Ok(Self::There(There {
                client,
                server,
                key: key.expose().to_owned(),
            }));
        }
        let base = boot::base(config)?;
        let cx = Arc::new(boot::opened(&base).await?);
        Ok(Self::Here(Box::new(Here {
            base,
            cx,
            platform: tenancy::operator(),
            origin: Origin::default(),
        })))
    }

    /// Ends what was started.
    pub(super) async fn close(self) {
        if let Self::Here(here) = self {
            here.cx.leave().await;
            here.base.runner.shutdown().await;
        }
    }

    /// How it is called.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Here(here) => format!("the data in {}", here.base.config.storage.data_dir.display()),
            Self::There(there) => there.server.clone(),
        }
    }

    /// Publishes an archive; the bundle, and whether it is new.
    pub(super) async fn publish(&self, archive: Vec<u8>, note: Option<&str>) -> Result<(Value, bool), Failure> {
        match self {
            Self::Here(here) => {
                let archive = Bytes::from(archive);
                let published = bundle::publish(&here.cx, &here.platform, &here.origin, archive, note).await?;
                let active = bundle::active(&here.cx, &here.platform, 0).await?.0;
                Ok((as_value(&BundleView::new(published.0, active.as_ref())), published.1))
            }
            Self::There(there) => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                if let Some(note) = note {
                    query.append_pair("note", note);
                }
                let path = format!("/api/bundles?{}", query.finish());
                let kind = "application/gzip";
                let (status, body) = there.send(Method::POST, &path, Some((kind, archive))).await?;
                Ok((body, status == StatusCode::CREATED))
            }
        }
    }

    /// All bundles.
    pub(super) async fn list(&self) -> Result<Value, Failure> {
        match self {
            Self::Here(here) => {
                let (bundles, active) = bundle::list(&here.cx, &here.platform).await?;
                let views = bundles.into_iter().map(|one| BundleView::new(one, active.as_ref()));
                Ok(json!({"items": views.map(|view| as_value(&view)).collect::<Vec<_>>(), "nextCursor": null}))
            }
            Self::There(there) => there.get("/api/bundles").await,
        }
    }

    /// One with its files.
    pub(super) async fn get(&self, digest: &BundleDigest) -> Result<Value, Failure> {
        match self {
            Self::Here(here) => {
                let (stored, files, active) = bundle::get(&here.cx, &here.platform, digest).await?;
                Ok(as_value(&BundleAnswer {
                    bundle: BundleView::new(stored, active.as_ref()),
                    contents: files.into_iter().map(FileView::from).collect(),
                }))
            }
            Self::There(there) => there.get(&format!("/api/bundles/{digest}")).await,
        }
    }

    /// What is active, and the newest activations.
    pub(super) async fn active(&self) -> Result<Value, Failure> {
        match self {
            Self::Here(here) => {
                let (active, history) = bundle::active(&here.cx, &here.platform, HISTORY).await?;
                let history: Vec<_> = history
                    .into_iter()
                    .map(|one| as_value(&ActivationView::from(one)))
                    .collect();
                Ok(json!({"digest": digest_of(active.as_ref()), "history": history}))
            }
            Self::There(there) => there.get(&format!("/api/bundles/active?limit={HISTORY}")).await,
        }
    }

    /// Activates a bundle; none is the deployed folder.
    pub(super) async fn activate(&self, digest: Option<&BundleDigest>, allow_empty: bool) -> Result<Value, Failure> {
        match self {
            Self::Here(here) => {
                let active =
                    bundle::activate(&here.cx, &here.platform, &here.origin, digest, None, allow_empty).await?;
                let mut answer = activation(&active);
                answer["noticed"] = json!(bundle::noticed(&here.cx, &here.platform).await);
                Ok(answer)
            }
            Self::There(there) => {
                let name = digest.map_or_else(|| "folder".to_owned(), ToString::to_string);
                let query = if allow_empty { "?allowEmpty=true" } else { "" };
                there
                    .post(&format!("/api/bundles/{name}/activate{query}"), &json!({}))
                    .await
            }
        }
    }

    /// Brings back what was active before.
    pub(super) async fn rollback(&self) -> Result<Value, Failure> {
        match self {
            Self::Here(here) => {
                let active = bundle::rollback(&here.cx, &here.platform, &here.origin, None).await?;
                Ok(activation(&active))
            }
            Self::There(there) => there.post("/api/bundles/rollback", &json!({})).await,
        }
    }

    /// Compares.
    pub(super) async fn diff(&self, digest: &BundleDigest, against: &Side) -> Result<Value, Failure> {
        match self {
            Self::Here(here) => {
                let diff = bundle::diff(&here.cx, &here.platform, digest, against).await?;
                Ok(as_value(&DiffAnswer::from(diff)))
            }
            Self::There(there) => {
                let against = match against {
                    Side::Active => "active".to_owned(),
                    Side::Folder => "folder".to_owned(),
                    Side::Bundle(digest) => digest.to_string(),
                };
                there
                    .get(&format!("/api/bundles/{digest}/diff?against={against}"))
                    .await
            }
        }
    }

    /// Deletes the oldest.
    pub(super) async fn prune(&self, newest: usize, dry_run: bool) -> Result<Value, Failure> {
        match self {
            Self::Here(here) => {
                let pruned = bundle::prune(&here.cx, &here.platform, &here.origin, newest, dry_run).await?;
                Ok(as_value(&PrunedAnswer::from(pruned)))
            }
            Self::There(there) => {
                let body = json!({"keep": newest, "dryRun": dry_run});
                there.post("/api/bundles/prune", &body).await
            }
        }
    }

    /// Deletes one.
    pub(super) async fn delete(&self, digest: &BundleDigest) -> Result<(), Failure> {
        match self {
            Self::Here(here) => Ok(bundle::delete(&here.cx, &here.platform, &here.origin, digest).await?),
            Self::There(there) => {
                there
                    .send(Method::DELETE, &format!("/api/bundles/{digest}"), None)
                    .await?;
                Ok(())
            }
        }
    }

    /// The bundle that a text means: a digest, or as much of its beginning as no other has.
    pub(super) async fn find(&self, text: &str) -> Result<BundleDigest, Failure> {
        if let Ok(digest) = text.parse() {
            return Ok(digest);
        }
        let start = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        let listed = self.list().await?;
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        let found: Vec<BundleDigest> = items
            .iter()
            .filter_map(|item| item["digest"].as_str()?.parse::<BundleDigest>().ok())
            .filter(|digest| !start.is_empty() && digest.hex().starts_with(&start))
            .collect();
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(Failure::new(format!("there is no bundle `{text}`"))
                .hint("`weft bundles list` shows those that there are")),
            _ => Err(
                Failure::new(format!("`{text}` is the beginning of {} bundles", found.len())).hint("give more of it"),
            ),
        }
    }
}

fn as_value(view: &impl Serialize) -> Value {
    serde_json::to_value(view).unwrap_or_default()
}

fn digest_of(active: Option<&Active>) -> Value {
    json!(active.and_then(|active| active.activation.digest.as_ref()))
}

fn activation(active: &Active) -> Value {
    json!({
        "digest": digest_of(Some(active)),
        "history": [as_value(&ActivationView::from(active.activation.clone()))],
    })
}

impl There {
    async fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.send(Method::GET, path, None).await?.1)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let body = ("application/json", body.to_string().into_bytes());
        Ok(self.send(Method::POST, path, Some(body)).await?.1)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<(StatusCode, Value), Failure> {
        let away = |error: reqwest::Error| {
            Failure::new(format!(
                "`{}` can't be reached: {}",
                self.server,
                output::chain(&error.without_url())
            ))
            .hint("check `--server` or `WEFT_SERVER`")
        };
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.server))
            .header("x-functions-key", &self.key)
            .header(header::USER_AGENT, concat!("weft/", env!("CARGO_PKG_VERSION")));
        if let Some((kind, bytes)) = body {
            request = request.header(header::CONTENT_TYPE, kind).body(bytes);
        }
        let answer = request.send().await.map_err(away)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(away)?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok((status, body));
        }
        let text = |member: &str| body[member].as_str().map(output::plain);
        let Some(detail) = text("detail") else {
            return Err(
                Failure::new(format!("`{}` answered {status} without a reason", self.server))
                    .hint("check that it is the address of a Weft, without `/api`"),
            );
        };
        let mut failure = Failure::new(format!("{detail} ({status}, {})", text("code").unwrap_or_default()));
        failure.hint = text("hint");
        failure.findings = body["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|finding| serde_json::from_value::<Finding>(finding.clone()).ok())
            .collect();
        Err(failure)
    }
}

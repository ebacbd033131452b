//! Secrets: written, listed by name, deleted; and found for attempts, whose broker asks. No answer of these functions but
//! [`find`]'s holds a value.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::on_record::{keep, recorded};
use super::{Context, Error, Result};
use crate::audit::{Event as AuditEvent, Record};
use crate::authz::{Action, Origin, Resource};
use crate::domain::{Secret, SecretName, Timestamp};
use crate::egress::policy::Pattern;
use crate::error::{Finding, Kind};
use crate::secrets::mask;
use crate::store;
use crate::store::key::HOOK_SECRETS;
use crate::store::port::Ports;
use crate::store::repo::audit_log::Within;
use crate::store::repo::secrets::SecretUses;
use crate::store::secret::{MAX_DESCRIPTION_BYTES, MAX_HOSTS_BYTES, MAX_VALUE_BYTES, NewSecret, SecretStore};
pub use crate::store::secret::{Presented, SecretRecord, StoredSecret};
use crate::tenancy::{PlatformScope, Scope, operator_in};

/// Values from here on are masked without hiding much else.
pub const GOOD_BYTES: usize = 8;
/// Organizations that are read at once.
const PAGE: usize = 100;

/// Where secrets are kept, and which of the platform's are for everybody.
#[derive(Debug)]
pub struct Secrets {
    store: Option<Arc<dyn SecretStore>>,
    inherited: Vec<SecretName>,
    uses: SecretUses,
}

impl Secrets {
    /// Kept there; nowhere where the operator has given neither a key nor a vault.
    #[must_use]
    pub fn new(store: Option<Arc<dyn SecretStore>>, inherited: Vec<SecretName>, ports: Ports) -> Self {
        Self {
            store,
            inherited,
            uses: SecretUses::new(ports),
        }
    }

    /// `sealed`, `key_vault` or `off`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.store.as_ref().map_or("off", |store| store.kind())
    }

    fn store(&self) -> Result<&dyn SecretStore> {
        self.store.as_deref().ok_or_else(|| {
            Error::unavailable(
                "secrets_off",
                "this installation keeps no secrets",
                "the operator sets `WEFT_SECRETS_KEY`, `WEFT_SECRETS_KEY_FILE` or `WEFT_KEY_VAULT_URL`",
            )
        })
    }

    fn inherits(&self, name: &SecretName) -> bool {
        self.inherited.iter().any(|other| other.same(name))
    }
}

/// A secret to write.
#[derive(Debug)]
pub struct WriteSecret {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Secret,
    /// Where Weft may send it; what stands there stays when none are given.
    pub hosts: Option<Vec<String>>,
    /// How it is put on a request, as [`Presented::parse`] reads it; what stands there stays when it isn't given.
    pub presented: Option<String>,
    /// What it is for; what stands there stays when it isn't given.
    pub description: Option<String>,
}

/// What came of a writing.
#[derive(Debug)]
pub struct Wrote {
    /// What is told of it from now on.
    pub record: SecretRecord,
    /// Whether there was none of this name.
    pub created: bool,
    /// What is better done otherwise.
    pub advice: Option<&'static str>,
}

/// A secret in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What is told of it.
    pub record: SecretRecord,
    /// When an attempt last used it, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// Whether it is the platform's, which the organization may use as it has none of this name.
    pub inherited: bool,
}

/// Writes a secret of an organization. What could not be read as one is refused after whoever may not.
///
/// # Errors
/// When the scope may not, something of it can't be, or it can't be kept.
pub async fn put(cx: &Context, scope: &Scope, origin: &Origin, new: Result<WriteSecret>) -> Result<Wrote> {
    scope.authorize(Action::Modify, Resource::Secret)?;
    write(cx, scope.into(), Some(origin), new?).await
}

/// Writes a secret of the platform.
///
/// # Errors
/// When something of it can't be, or it can't be kept.
pub async fn put_platform(cx: &Context, platform: &PlatformScope, new: WriteSecret) -> Result<Wrote> {
    write(cx, platform.into(), None, new).await
}

async fn write(cx: &Context, within: Within<'_>, origin: Option<&Origin>, new: WriteSecret) -> Result<Wrote> {
    let store = cx.secrets.store()?;
    let name = named(&new.name)?;
    let before = store
        .list(within)
        .await?
        .into_iter()
        .find(|other| other.name.same(&name));
    let record = checked(cx, within, name, &new, before.as_ref())?;
    let length = new.value.expose().len();
    let advice = (length < GOOD_BYTES)
        .then_some("values of 8 bytes and more are better: a short one is found, and masked, where it wasn't meant");
    let detail = json!({
        "hosts": record.hosts,
        "presented": record.presented.to_string(),
        "created": before.is_none(),
        "store": store.kind(),
    });
    let put = NewSecret {
        record: record.clone(),
        value: new.value,
    };
    let put = async { Ok(store.put(within, put).await?) };
    let written = || audited(cx, within, origin, AuditEvent::SecretChanged, &record.name).detail(&detail);
    let created = recorded(cx, within, written, put).await?;
    Ok(Wrote {
        record,
        created,
        advice,
    })
}

fn checked(
    cx: &Context,
    within: Within<'_>,
    name: SecretName,
    new: &WriteSecret,
    before: Option<&SecretRecord>,
) -> Result<SecretRecord> {
    let mut findings = Vec::new();
    let mut find = |pointer: &str, code: &str, message: String| findings.push(Finding::new(pointer, code, message));
    let length = new.value.expose().len();
    if length < mask::MIN_BYTES {
        let least = mask::MIN_BYTES;
        find(
            "/value",
            "too_short",
            format!("a value has at least {least} bytes, or it can't be masked in logs"),
        );
    }
    if length > MAX_VALUE_BYTES {
        find(
            "/value",
            "too_large",
            format!("a value has at most {MAX_VALUE_BYTES} bytes"),
        );
    }
    let hosts = match (&new.hosts, before) {
        (Some(hosts), _) => hosts.clone(),
        (None, Some(before)) => before.hosts.clone(),
        (None, None) => Vec::new(),
    };
    if hosts.iter().map(|host| host.len() + 1).sum::<usize>() > MAX_HOSTS_BYTES {
        find(
            "/hosts",
            "too_large",
            format!("the hosts have at most {MAX_HOSTS_BYTES} bytes together"),
        );
    }
    let presented = match (&new.presented, before) {
        (Some(text), _) => Presented::parse(text).unwrap_or_else(|| {
            let message = "how a secret is sent is `bearer`, `basic` or `header:NAME`";
            find("/sentAs", "invalid", message.to_owned());
            Presented::default()
        }),
        (None, before) => before.map(|before| before.presented.clone()).unwrap_or_default(),
    };
    let description = match (&new.description, before) {
        (Some(text), _) => text.trim().to_owned(),
        (None, before) => before.map(|before| before.description.clone()).unwrap_or_default(),
    };
    if description.len() > MAX_DESCRIPTION_BYTES || description.contains(char::is_control) {
        let most = MAX_DESCRIPTION_BYTES;
        find(
            "/description",
            "invalid",
            format!("a description is one line of at most {most} bytes"),
        );
    }
    for (place, host) in hosts.iter().enumerate() {
        if host.contains(',') {
            findings.push(Finding::new(
                format!("/hosts/{place}"),
                "invalid_host",
                "one host in each item",
            ));
        } else if let Err(finding) = Pattern::parse(host, &format!("/hosts/{place}")) {
            findings.push(finding);
        }
    }
    if !findings.is_empty() {
        let hint = "send `{\"value\": \"…\", \"hosts\": [\"api.example.com\"]}`";
        return Err(Error::invalid(
            "secret_invalid",
            "the secret can't be kept like this",
            hint,
            findings,
        ));
    }
    Ok(SecretRecord {
        name,
        hosts,
        presented,
        description,
        updated_at: cx.clock.now(),
        updated_by: match within {
            Within::Organization(scope) => scope.principal().id(),
            Within::Platform(platform) => platform.principal().id(),
        },
    })
}

/// The secrets that workflows of an organization may declare, by name: its own, and those of the platform that it inherits.
///
/// # Errors
/// When the scope may not, or the store fails.
pub async fn list(cx: &Context, scope: &Scope) -> Result<Vec<Listed>> {
    scope.authorize(Action::List, Resource::Secret)?;
    let store = cx.secrets.store()?;
    let uses = cx.secrets.uses.list(scope).await?;
    let mut all = listed(store.list(scope.into()).await?, &uses, false);
    for name in &cx.secrets.inherited {
        if all.iter().any(|own| own.record.name.same(name)) {
            continue;
        }
        if let Some(secret) = store.get_inherited(scope, name).await? {
            all.extend(listed(vec![secret.record], &uses, true));
        }
    }
    all.sort_by_key(|one| one.record.name.canonical());
    Ok(all)
}

/// The secrets of the platform, by name.
///
/// # Errors
/// When the store fails.
pub async fn list_platform(cx: &Context, platform: &PlatformScope) -> Result<Vec<Listed>> {
    let records = cx.secrets.store()?.list(platform.into()).await?;
    Ok(listed(records, &BTreeMap::new(), false))
}

fn listed(records: Vec<SecretRecord>, uses: &BTreeMap<String, Timestamp>, inherited: bool) -> Vec<Listed> {
    let shown = |record: &SecretRecord| !is_of_a_hook(&record.name);
    let one = |record: SecretRecord| Listed {
        last_used_at: uses.get(&record.name.canonical()).copied(),
        record,
        inherited,
    };
    records.into_iter().filter(shown).map(one).collect()
}

/// Deletes a secret of an organization.
///
/// # Errors
/// When the scope may not, there is none of this name, or the store fails.
pub async fn delete(cx: &Context, scope: &Scope, origin: &Origin, name: &str) -> Result<()> {
    scope.authorize(Action::Delete, Resource::Secret)?;
    remove(cx, scope.into(), Some(origin), name).await
}

/// Deletes a secret of the platform.
///
/// # Errors
/// When there is none of this name, or the store fails.
pub async fn delete_platform(cx: &Context, platform: &PlatformScope, name: &str) -> Result<()> {
    remove(cx, platform.into(), None, name).await
}

async fn remove(cx: &Context, within: Within<'_>, origin: Option<&Origin>, name: &str) -> Result<()> {
    let name = named(name)?;
    let store = cx.secrets.store()?;
    let missing = || {
        Error::not_found(
            "secret_not_found",
            format!("there is no secret `{name}` here"),
            "`GET /api/secrets` and `weft secrets list` show those that there are",
        )
    };
    if !store.list(within).await?.iter().any(|there| there.name.same(&name)) {
        return Err(missing());
    }
    let delete = async {
        let deleted = store.delete(within, &name).await?;
        deleted.then_some(()).ok_or_else(missing)
    };
    let record = || audited(cx, within, origin, AuditEvent::SecretDeleted, &name);
    recorded(cx, within, record, delete).await
}

/// Seals every secret anew that isn't sealed by the current key; how many there were.
///
/// # Errors
/// When the store fails, or one can't be opened. What was done until then is done.
pub async fn reseal(cx: &Context, platform: &PlatformScope) -> Result<usize> {
    let store = cx.secrets.store()?;
    let record = |detail: Value| cx.audit.by(platform, AuditEvent::SecretsResealed).detail(&detail);
    keep(cx, platform, record(json!({"begun": true, "store": store.kind()}))).await?;
    let mut count = store.reseal(platform.into()).await?;
    let mut after = None;
    loop {
        let page = cx.identities.list_organizations(platform, PAGE, after).await?;
        for organization in page.items {
            let scope = operator_in(platform, &organization.id);
            match store.reseal((&scope).into()).await {
                Ok(resealed) => count += resealed,
                // Deleted with its table.
                Err(store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    keep(cx, platform, record(json!({"count": count, "store": store.kind()}))).await?;
    Ok(count)
}

/// A secret for an attempt of the organization: its own, else the platform's of this name if the operator lets everybody
/// have it. Whether the attempt may have it is for its broker to decide.
///
/// # Errors
/// When there is no store, or it fails.
pub(super) async fn find(cx: &Context, scope: &Scope, name: &SecretName) -> Result<Option<StoredSecret>> {
    let store = cx.secrets.store()?;
    if is_of_a_hook(name) {
        return Ok(None);
    }
    if let Some(own) = store.get(scope.into(), name).await? {
        return Ok(Some(own));
    }
    if cx.secrets.inherits(name) {
        return Ok(store.get_inherited(scope, name).await?);
    }
    Ok(None)
}

/// Notes that an attempt has used a secret. Failing is no reason to keep it from the attempt: it is a hint for people.
pub(super) async fn note_use(cx: &Context, scope: &Scope, name: &SecretName) {
    if let Err(error) = cx.secrets.uses.note(scope, name, cx.clock.now()).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the use of a secret could not be noted"
        );
    }
}

fn named(text: &str) -> Result<SecretName> {
    let refused = |detail: String| Error::Request {
        kind: Kind::Invalid,
        code: "parameter_invalid",
        detail,
        hint: Some("name it like `API_KEY` or `api-key`".into()),
        findings: Vec::new(),
    };
    let name: SecretName = text
        .parse()
        .map_err(|error: crate::domain::TextError| refused(error.to_string()))?;
    if is_of_a_hook(&name) {
        return Err(refused(format!(
            "names that begin with `{HOOK_SECRETS}` are those of webhooks' secrets"
        )));
    }
    Ok(name)
}

/// Whether a name is that of a webhook's secret: kept among the others, and neither listed, nor written, nor used as one.
fn is_of_a_hook(name: &SecretName) -> bool {
    name.canonical().starts_with(HOOK_SECRETS)
}

/// Keeps a webhook's secret.
///
/// # Errors
/// When there is no store, or it fails.
pub(super) async fn put_of_hook(cx: &Context, scope: &Scope, name: &SecretName, value: Secret) -> Result<()> {
    let record = SecretRecord {
        name: name.clone(),
        hosts: Vec::new(),
        presented: Presented::default(),
        description: String::new(),
        updated_at: cx.clock.now(),
        updated_by: scope.principal().id(),
    };
    cx.secrets
        .store()?
        .put(scope.into(), NewSecret { record, value })
        .await?;
    Ok(())
}

/// A webhook's secret.
///
/// # Errors
/// When there is no store, or it fails.
pub(super) async fn get_of_hook(cx: &Context, scope: &Scope, name: &SecretName) -> Result<Option<Secret>> {
    let found = cx.secrets.store()?.get(scope.into(), name).await?;
    Ok(found.map(|stored| stored.value))
}

/// Deletes a webhook's secret. That there is none is as good.
///
/// # Errors
/// When there is no store, or it fails.
pub(super) async fn delete_of_hook(cx: &Context, scope: &Scope, name: &SecretName) -> Result<()> {
    cx.secrets.store()?.delete(scope.into(), name).await?;
    Ok(())
}

fn audited(cx: &Context, within: Within<'_>, origin: Option<&Origin>, event: AuditEvent, name: &SecretName) -> Record {
    let record = cx.audit.by(within, event).resource("secret", name.as_str());
    match origin {
        Some(origin) => record.came_from(origin),
        None => record,
    }
}

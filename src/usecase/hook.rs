//! Webhooks, as the people of an organization manage them. A hook's secret is answered once, when it is made, and by nothing
//! else.

use serde_json::{Map, Value, json};

use super::on_record::recorded;
use super::{Context, Error, Result, resolve, secret};
use crate::audit::{Event as AuditEvent, Record};
use crate::authz::{Action, Origin, Resource};
use crate::domain::{DisplayName, HookId, Secret, Timestamp};
use crate::error::{Coded as _, Finding, Kind};
pub use crate::hooks::{ArgumentRule, Deduplicate, Generic, Hook, HookSecret, SameBy, Scheme};
use crate::hooks::{
    Encoding, MAX_OVERLAP_SECONDS, OVERLAP_SECONDS, PER_MINUTE, RATES, SCHEMES, WINDOW_SECONDS, WINDOWS,
    generate_secret, is_secret,
};
use crate::store;
use crate::store::key;
pub use crate::store::repo::hooks::{Deliveries, Delivery, StoredHook};
use crate::tenancy::Scope;

/// Most hooks of an organization.
pub const MAX_HOOKS: usize = 200;
/// Most characters of a header's name or of a prefix.
const MAX_HEADER: usize = 64;
/// Members of an answer that mean nothing in a request, so that what was read can be changed and sent back.
const READ_ONLY: [&str; 7] = [
    "id",
    "path",
    "createdBy",
    "createdAt",
    "updatedAt",
    "secrets",
    "deliveries",
];

/// What is asked for, as it was sent: names and values are checked here, all at once.
#[derive(Debug)]
pub struct HookInput {
    /// The members of the body, without the secret.
    pub members: Map<String, Value>,
    /// The sender's own secret; one is made up when there is none.
    pub secret: Option<Secret>,
}

/// A hook with a secret that is shown this once.
#[derive(Debug)]
pub struct WithSecret {
    /// The hook.
    pub stored: StoredHook,
    /// The secret.
    pub secret: Secret,
}

/// The organization's hooks, by name.
///
/// # Errors
/// When the scope may not, or storage fails.
pub async fn list(cx: &Context, scope: &Scope) -> Result<Vec<StoredHook>> {
    scope.authorize(Action::List, Resource::Hook)?;
    let mut hooks = cx.hooks.list(scope).await?;
    hooks.sort_by(|a, b| (a.hook.name.as_str(), &a.hook.id).cmp(&(b.hook.name.as_str(), &b.hook.id)));
    Ok(hooks)
}

/// One hook, and what was delivered to it.
///
/// # Errors
/// When the scope may not, there is no such hook in the organization, or storage fails.
pub async fn get(cx: &Context, scope: &Scope, id: &HookId) -> Result<(StoredHook, Deliveries)> {
    scope.authorize(Action::Read, Resource::Hook)?;
    let stored = existing(cx, scope, id).await?;
    Ok((stored, cx.hooks.deliveries(scope, id).await?))
}

/// Makes a hook.
///
/// # Errors
/// When the scope may not, something of it can't be, there are too many, secrets aren't kept here, or storage fails.
pub async fn create(cx: &Context, scope: &Scope, origin: &Origin, input: HookInput) -> Result<WithSecret> {
    scope.authorize(Action::Create, Resource::Hook)?;
    let now = cx.clock.now();
    let mut findings = Vec::new();
    let settings = checked(cx, scope, &input.members, None, &mut findings).await?;
    if let (Some(given), Some(settings)) = (&input.secret, &settings) {
        check_secret(&settings.scheme, given, &mut findings);
    }
    let settings = settled(settings, findings)?;
    if cx.hooks.list(scope).await?.len() >= MAX_HOOKS {
        return Err(Error::conflict(
            "hook_limit_reached",
            format!("the organization has {MAX_HOOKS} hooks"),
            "delete one that nobody uses",
        ));
    }
    let random = cx.entropy.bytes();
    let secret = input
        .secret
        .unwrap_or_else(|| generate_secret(&settings.scheme, random));
    let hook = Hook {
        id: HookId::generate(cx.entropy.bytes()),
        name: settings.name,
        workflow: settings.workflow,
        scheme: settings.scheme,
        arguments: settings.arguments,
        enabled: settings.enabled,
        per_minute: settings.per_minute,
        deduplicate: settings.deduplicate,
        challenge: settings.challenge,
        created_by: scope.principal().id(),
        created_at: now,
        updated_at: now,
        secrets: vec![new_secret(cx, now)],
    };
    put_secret(cx, scope, &hook, secret.clone()).await?;
    let record = || audited(cx, scope, origin, AuditEvent::HookCreated, &hook).detail(&shown(&hook));
    let create = async { Ok(cx.hooks.create(scope, hook.clone()).await?) };
    let stored = recorded(cx, scope, record, create).await?;
    Ok(WithSecret { stored, secret })
}

/// Replaces a hook's settings; its id, scheme and secrets stay.
///
/// # Errors
/// When the scope may not, there is no such hook, `if_tag` names another version, something can't be, or storage fails.
pub async fn replace(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    id: &HookId,
    input: HookInput,
    if_tag: Option<&str>,
) -> Result<StoredHook> {
    scope.authorize(Action::Modify, Resource::Hook)?;
    let before = existing(cx, scope, id).await?;
    if if_tag.is_some_and(|tag| tag != before.tag()) {
        return Err(changed());
    }
    let mut findings = Vec::new();
    let settings = checked(cx, scope, &input.members, Some(&before.hook), &mut findings).await?;
    if input.secret.is_some() {
        let finding = Finding::new("/secret", "read_only", "a secret is changed by `rotate`");
        findings.push(finding.hint(format!("POST /api/triggers/hooks/{id}/rotate")));
    }
    let settings = settled(settings, findings)?;
    let hook = Hook {
        name: settings.name,
        workflow: settings.workflow,
        scheme: settings.scheme,
        arguments: settings.arguments,
        enabled: settings.enabled,
        per_minute: settings.per_minute,
        deduplicate: settings.deduplicate,
        challenge: settings.challenge,
        updated_at: cx.clock.now(),
        ..before.hook.clone()
    };
    let record = || {
        audited(cx, scope, origin, AuditEvent::HookChanged, &hook)
            .changes(&json!({"hook": {"from": shown(&before.hook), "to": shown(&hook)}}))
    };
    let replace = async { cx.hooks.replace(scope, &before, hook.clone()).await.map_err(unwritten) };
    recorded(cx, scope, record, replace).await
}

/// What a rotation asks for.
#[derive(Debug, Default)]
pub struct Rotation {
    /// The sender's own new secret; one is made up when there is none.
    pub secret: Option<Secret>,
    /// How long the old one stays good, in seconds; [`OVERLAP_SECONDS`] when it isn't said, 0 for not at all.
    pub overlap_seconds: Option<u64>,
}

/// Gives a hook a new secret. The one before stays good for a while; one before that ends now.
///
/// # Errors
/// When the scope may not, there is no such hook, something can't be, somebody else changed it, or storage fails.
pub async fn rotate(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    id: &HookId,
    rotation: Rotation,
) -> Result<WithSecret> {
    scope.authorize(Action::Modify, Resource::Hook)?;
    let before = existing(cx, scope, id).await?;
    let mut findings = Vec::new();
    let overlap = rotation.overlap_seconds.unwrap_or(u64::from(OVERLAP_SECONDS));
    if overlap > u64::from(MAX_OVERLAP_SECONDS) {
        let message = format!("an old secret stays good for 0 to {MAX_OVERLAP_SECONDS} seconds");
        findings.push(Finding::new("/overlapSeconds", "out_of_range", message));
    }
    if let Some(given) = &rotation.secret {
        check_secret(&before.hook.scheme, given, &mut findings);
    }
    if !findings.is_empty() {
        return Err(invalid(findings));
    }
    let now = cx.clock.now();
    let random = cx.entropy.bytes();
    let secret = rotation
        .secret
        .unwrap_or_else(|| generate_secret(&before.hook.scheme, random));
    let mut hook = before.hook.clone();
    let mut dropped = hook.secrets.split_off(1);
    if overlap == 0 {
        dropped.append(&mut hook.secrets);
    } else {
        for old in &mut hook.secrets {
            old.until = Some(now.plus(std::time::Duration::from_secs(overlap)));
        }
    }
    hook.secrets.insert(0, new_secret(cx, now));
    hook.updated_at = now;
    put_secret(cx, scope, &hook, secret.clone()).await?;
    let replace = async {
        match cx.hooks.replace(scope, &before, hook.clone()).await {
            Ok(stored) => Ok(stored),
            Err(error) => {
                // What was not taken is not kept.
                drop_secrets(cx, scope, id, &hook.secrets[..1]).await?;
                Err(unwritten(error))
            }
        }
    };
    let record = || {
        audited(cx, scope, origin, AuditEvent::HookRotated, &hook)
            .detail(&json!({"overlapSeconds": overlap, "ended": dropped.len()}))
    };
    let stored = recorded(cx, scope, record, replace).await?;
    drop_secrets(cx, scope, id, &dropped).await?;
    Ok(WithSecret { stored, secret })
}

/// Deletes a hook with its secrets. Runs that it has started stay.
///
/// # Errors
/// When the scope may not, there is no such hook, or storage fails.
pub async fn delete(cx: &Context, scope: &Scope, origin: &Origin, id: &HookId) -> Result<()> {
    scope.authorize(Action::Delete, Resource::Hook)?;
    let before = existing(cx, scope, id).await?;
    let delete = async {
        if cx.hooks.delete(scope, id).await? {
            Ok(())
        } else {
            Err(not_found(id))
        }
    };
    let record = || audited(cx, scope, origin, AuditEvent::HookDeleted, &before.hook);
    recorded(cx, scope, record, delete).await?;
    drop_secrets(cx, scope, id, &before.hook.secrets).await
}

async fn existing(cx: &Context, scope: &Scope, id: &HookId) -> Result<StoredHook> {
    cx.hooks.get(scope, id).await?.ok_or_else(|| not_found(id))
}

fn not_found(id: &HookId) -> Error {
    Error::not_found(
        "hook_not_found",
        format!("there is no hook `{id}` in this organization"),
        "`GET /api/triggers/hooks` lists those that there are",
    )
}

fn changed() -> Error {
    Error::Request {
        kind: Kind::PreconditionFailed,
        code: "hook_changed",
        detail: "the hook is no longer the one that was to be changed".to_owned(),
        hint: Some("read it again, apply the change to it, and send its `ETag` as `If-Match`".to_owned()),
        findings: Vec::new(),
    }
}

fn unwritten(error: store::Error) -> Error {
    match error {
        store::Error::PreconditionFailed { .. } => changed(),
        other => other.into(),
    }
}

fn new_secret(cx: &Context, now: Timestamp) -> HookSecret {
    let random: [u8; 5] = cx.entropy.bytes();
    HookSecret {
        version: random.iter().map(|byte| format!("{byte:02x}")).collect(),
        created_at: now,
        until: None,
    }
}

async fn put_secret(cx: &Context, scope: &Scope, hook: &Hook, value: Secret) -> Result<()> {
    let name = key::hook_secret(&hook.id, &hook.secrets[0].version)?;
    secret::put_of_hook(cx, scope, &name, value).await
}

async fn drop_secrets(cx: &Context, scope: &Scope, id: &HookId, secrets: &[HookSecret]) -> Result<()> {
    for one in secrets {
        secret::delete_of_hook(cx, scope, &key::hook_secret(id, &one.version)?).await?;
    }
    Ok(())
}

fn audited(cx: &Context, scope: &Scope, origin: &Origin, event: AuditEvent, hook: &Hook) -> Record {
    let record = cx.audit.by(scope, event).came_from(origin);
    record.resource("hook", hook.id.as_str())
}

/// What records say of a hook.
fn shown(hook: &Hook) -> Value {
    json!({
        "name": hook.name.as_str(), "workflow": hook.workflow, "scheme": hook.scheme.as_str(), "enabled": hook.enabled,
        "perMinute": hook.per_minute, "deduplicate": hook.deduplicate, "arguments": hook.arguments,
    })
}

/// What of a hook can be set.
struct Settings {
    name: DisplayName,
    workflow: String,
    scheme: Scheme,
    arguments: ArgumentRule,
    enabled: bool,
    per_minute: u32,
    deduplicate: Deduplicate,
    challenge: Option<String>,
}

fn invalid(findings: Vec<Finding>) -> Error {
    let detail = format!("the hook has {} finding(s)", findings.len());
    Error::invalid("hook_invalid", detail, "docs/hooks.md describes every member", findings)
}

fn settled(settings: Option<Settings>, findings: Vec<Finding>) -> Result<Settings> {
    match settings {
        Some(settings) if findings.is_empty() => Ok(settings),
        _ => Err(invalid(findings)),
    }
}

fn check_secret(scheme: &Scheme, secret: &Secret, findings: &mut Vec<Finding>) {
    if !is_secret(scheme, secret) {
        let message = match scheme {
            Scheme::Svix => "the secret is `whsec_` and 16 to 512 bytes in base64",
            _ => "the secret has 16 to 512 bytes and no control characters",
        };
        let finding = Finding::new("/secret", "invalid", message);
        findings.push(finding.hint("leave it out, and one is made up"));
    }
}

/// Reads members one by one, and remembers what is wrong with each.
pub(super) struct Reader<'a> {
    pub(super) members: &'a Map<String, Value>,
    pub(super) findings: &'a mut Vec<Finding>,
}

impl Reader<'_> {
    pub(super) fn find(&mut self, pointer: &str, code: &str, message: impl Into<String>) {
        self.findings.push(Finding::new(pointer, code, message));
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.find(&format!("/{name}"), "wrong_type", format!("`{name}` is a text"));
                None
            }
        }
    }

    pub(super) fn required(&mut self, name: &str) -> Option<String> {
        if self.value(name).is_none() {
            self.find(&format!("/{name}"), "required", format!("`{name}` is needed"));
        }
        self.text(name)
    }

    fn number(
        &mut self,
        pointer: &str,
        value: Option<&Value>,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> u32 {
        let Some(value) = value.filter(|value| !value.is_null()) else {
            return default;
        };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                let message = format!("a whole number from {} to {}", range.start(), range.end());
                self.find(pointer, "out_of_range", message);
                default
            }
        }
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        match self.value(name) {
            None => default,
            Some(Value::Bool(truth)) => *truth,
            Some(_) => {
                self.find(&format!("/{name}"), "wrong_type", format!("`{name}` is true or false"));
                default
            }
        }
    }

    fn object(&mut self, name: &str, members: &[&str]) -> Option<Map<String, Value>> {
        let value = self.value(name)?.clone();
        let Value::Object(object) = value else {
            self.find(&format!("/{name}"), "wrong_type", format!("`{name}` is an object"));
            return None;
        };
        for member in object.keys().filter(|member| !members.contains(&member.as_str())) {
            let message = format!("`{name}` has no such member; it has {}", listed(members));
            self.find(&format!("/{name}/{member}"), "unknown", message);
        }
        Some(object)
    }
}

pub(super) fn listed(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// The settings that members say; nothing when one that is needed can't be read.
async fn checked(
    cx: &Context,
    scope: &Scope,
    members: &Map<String, Value>,
    before: Option<&Hook>,
    findings: &mut Vec<Finding>,
) -> Result<Option<Settings>> {
    const KNOWN: [&str; 9] = [
        "name",
        "workflow",
        "scheme",
        "signature",
        "arguments",
        "enabled",
        "perMinute",
        "deduplicate",
        "challenge",
    ];
    let mut reader = Reader { members, findings };
    for name in members.keys().map(String::as_str) {
        if !KNOWN.contains(&name) && !READ_ONLY.contains(&name) {
            let message = format!("a hook has no such member; it has {}", listed(&KNOWN));
            reader.find(&format!("/{name}"), "unknown", message);
        }
    }
    let name = reader
        .required("name")
        .and_then(|text| match text.parse::<DisplayName>() {
            Ok(name) => Some(name),
            Err(error) => {
                reader.find("/name", "invalid", error.to_string());
                None
            }
        });
    let scheme = scheme(&mut reader, before);
    let arguments = argument_rule(&mut reader);
    let workflow = reader.required("workflow");
    if let Some(workflow) = &workflow {
        match resolve::resolve(cx, scope, workflow).await {
            Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::Conflict) => return Err(error),
            Err(error) => {
                let finding = Finding::new("/workflow", "unknown", error.to_string());
                reader
                    .findings
                    .push(finding.hint("`GET /api/workflows` lists those that there are"));
            }
            Ok(found) => {
                let declared = found.declared();
                if let Some(ArgumentRule::Wrap { name }) = &arguments
                    && !declared.parameters.iter().any(|parameter| parameter.name == *name)
                {
                    let message = format!("`{workflow}` has no parameter `{name:.60}`");
                    reader.find("/arguments/wrap", "unknown", message);
                }
            }
        }
    }
    let enabled = reader.flag("enabled", true);
    let per_minute = reader.number("/perMinute", members.get("perMinute"), PER_MINUTE, RATES);
    let deduplicate = deduplicate(&mut reader);
    let challenge = reader.text("challenge");
    if let Some(name) = &challenge {
        let good = (1..=MAX_HEADER).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && !name.eq_ignore_ascii_case("code");
        if !good {
            let message = "the name of a query parameter: letters, digits and `._-`, and not `code`";
            reader.find("/challenge", "invalid", message);
        }
    }
    let (Some(name), Some(workflow), Some(scheme), Some(arguments)) = (name, workflow, scheme, arguments) else {
        return Ok(None);
    };
    Ok(Some(Settings {
        name,
        workflow,
        scheme,
        arguments,
        enabled,
        per_minute,
        deduplicate,
        challenge,
    }))
}

fn scheme(reader: &mut Reader<'_>, before: Option<&Hook>) -> Option<Scheme> {
    let kind = reader.required("scheme");
    let signature = reader.object(
        "signature",
        &["header", "encoding", "prefix", "deliveryHeader", "algorithm"],
    );
    let kind = kind?;
    let scheme = match (kind.as_str(), signature) {
        ("generic", Some(signature)) => Scheme::Generic(generic(reader, &signature)?),
        ("generic", None) => {
            let message = "a `generic` hook says where its signature stands: `{\"header\": \"X-Signature\"}`";
            reader.find("/signature", "required", message);
            return None;
        }
        (named, signature) => {
            // Standard Webhooks is what Svix's scheme has become.
            let named = if named == "standard" { "svix" } else { named };
            let Some(scheme) = SCHEMES.iter().find(|scheme| scheme.as_str() == named) else {
                let mut names: Vec<_> = SCHEMES.iter().map(Scheme::as_str).collect();
                names.push("generic");
                reader.find("/scheme", "unknown", format!("a scheme is one of {}", listed(&names)));
                return None;
            };
            if signature.is_some() {
                let message = "only a `generic` hook says how it is signed";
                reader.find("/signature", "not_allowed", message);
            }
            scheme.clone()
        }
    };
    if let Some(before) = before
        && before.scheme.as_str() != scheme.as_str()
    {
        let message = format!("the scheme of this hook is `{}` and stays so", before.scheme.as_str());
        let finding = Finding::new("/scheme", "read_only", message);
        reader
            .findings
            .push(finding.hint("make another hook: the secret is one of its scheme"));
    }
    Some(scheme)
}

fn generic(reader: &mut Reader<'_>, signature: &Map<String, Value>) -> Option<Generic> {
    let found = reader.findings.len();
    let mut text = |name: &str| match signature.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => {
            let message = format!("`{name}` is a text");
            reader.find(&format!("/signature/{name}"), "wrong_type", message);
            None
        }
    };
    let (header, encoding, prefix) = (text("header"), text("encoding"), text("prefix").unwrap_or_default());
    let (delivery_header, algorithm) = (text("deliveryHeader"), text("algorithm"));
    if algorithm.is_some_and(|algorithm| algorithm != "hmac-sha256") {
        let message = "signatures are `hmac-sha256`; SHA-1 and MD5 are not taken";
        reader.find("/signature/algorithm", "refused", message);
    }
    let encoding = match encoding.as_deref() {
        None | Some("hex") => Encoding::Hex,
        Some("base64") => Encoding::Base64,
        Some(_) => {
            reader.find("/signature/encoding", "unknown", "an encoding is `hex` or `base64`");
            Encoding::Hex
        }
    };
    if prefix.len() > MAX_HEADER || !prefix.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!("a prefix is at most {MAX_HEADER} visible characters");
        reader.find("/signature/prefix", "invalid", message);
    }
    let Some(header) = header else {
        reader.find("/signature/header", "required", "the header of the signature is needed");
        return None;
    };
    let header = header_name(reader, "/signature/header", &header);
    let delivery_header = delivery_header.and_then(|name| header_name(reader, "/signature/deliveryHeader", &name));
    (reader.findings.len() == found)
        .then_some(header)
        .flatten()
        .map(|header| Generic {
            header,
            encoding,
            prefix,
            delivery_header,
        })
}

/// A header that senders may set, in lower case. Those by which the way here says who is calling are not among them.
fn header_name(reader: &mut Reader<'_>, pointer: &str, name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let form = (1..=MAX_HEADER).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let taken = [
        "x-functions-key",
        "authorization",
        "proxy-authorization",
        "cookie",
        "host",
        "content-type",
        "content-length",
    ];
    if !form || taken.contains(&name.as_str()) || name.starts_with("x-ms-") || name.starts_with("x-forwarded-") {
        let message = "the name of a header of the sender's own: letters, digits, `-` and `_`";
        reader.find(pointer, "invalid", message);
        return None;
    }
    Some(name)
}

pub(super) fn argument_rule(reader: &mut Reader<'_>) -> Option<ArgumentRule> {
    let wrong = "`arguments` is `\"body\"`, or `{\"wrap\": \"NAME\"}` with the name of a parameter";
    match reader.value("arguments") {
        None => return Some(ArgumentRule::Body),
        Some(Value::String(text)) if text == "body" => return Some(ArgumentRule::Body),
        Some(Value::Object(object)) => {
            if let (Some(Value::String(name)), 1) = (object.get("wrap"), object.len())
                && !name.is_empty()
            {
                return Some(ArgumentRule::Wrap { name: name.clone() });
            }
        }
        Some(_) => {}
    }
    reader.find("/arguments", "invalid", wrong);
    None
}

fn deduplicate(reader: &mut Reader<'_>) -> Deduplicate {
    let object = reader
        .object("deduplicate", &["by", "windowSeconds"])
        .unwrap_or_default();
    let by = match object.get("by") {
        None | Some(Value::Null) => SameBy::Delivery,
        Some(Value::String(text)) if text == "delivery" => SameBy::Delivery,
        Some(Value::String(text)) if text == "body" => SameBy::Body,
        Some(_) => {
            let message = "deliveries are the same by `delivery` or by `body`";
            reader.find("/deduplicate/by", "unknown", message);
            SameBy::Delivery
        }
    };
    let pointer = "/deduplicate/windowSeconds";
    let window_seconds = reader.number(pointer, object.get("windowSeconds"), WINDOW_SECONDS, WINDOWS);
    Deduplicate { by, window_seconds }
}

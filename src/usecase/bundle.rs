//! Published code: published once, activated, rolled back, compared, deleted when nobody needs it.
//!
//! A bundle becomes active only after this instance has fetched it as every other will, and its discovery in the jail has found
//! nothing wrong. The pointer to it is moved under the version that was read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::catalog::Current;
pub use super::follow::{Followed, LOOK_EVERY, Trouble};
use super::follow::{misled, stands};
use super::on_record::recorded;
use super::{Context, Error, Result};
use crate::audit::Event as AuditEvent;
use crate::authz::{Action, Caller, Origin};
use crate::domain::{BundleDigest, Status, Timestamp, sha256_hex};
use crate::error::{Finding, Kind};
use crate::runner::archive;
pub use crate::runner::archive::MAX_ARCHIVE_BYTES;
use crate::runner::bundle::Files;
use crate::store;
use crate::store::port::MAX_PAGE;
pub use crate::store::repo::bundles::{Act, Activation, Active, MAX_NOTE, StoredBundle};
use crate::store::repo::runs::RunQuery;
use crate::tenancy::{self, PlatformScope, operator_in};

/// What the memory of one upload is, in KiB: the archive, and what comes out of it.
const UPLOAD_KIB: u32 = 96 << 10;
/// How long packages of a bundle are waited for before it is activated.
const PATIENCE: Duration = Duration::from_secs(50);
/// How long after it was replaced a bundle may still be taken by an instance that has not noticed: several looks.
const NOTICED_AFTER: Duration = Duration::from_secs(120);
/// How many activations are looked at.
const HISTORY: usize = 1000;
/// From what number on an activation that is not signed counts for nothing.
const LARGEST_UNSIGNED: u64 = 1 << 40;
/// How many copies of the workspace stay on this machine, whoever needs them.
pub const COPIES: usize = 20;
/// Most files of each kind in a comparison.
const MAX_DIFF: usize = 1000;

/// For a caller who may use a verb on published code.
///
/// # Errors
/// When the caller may not.
pub fn publisher(caller: &Caller, action: Action) -> Result<PlatformScope> {
    Ok(tenancy::publisher(caller, action)?)
}

/// Publishes an archive of files. The same files give the same bundle. Whether it is new.
///
/// # Errors
/// When the archive is none, or has what no bundle may have (everything at once); when there are too many; when storage fails.
pub async fn publish(
    cx: &Context,
    platform: &PlatformScope,
    origin: &Origin,
    bytes: Bytes,
    note: Option<&str>,
) -> Result<(StoredBundle, bool)> {
    let note = note.map(checked_note).transpose()?.flatten();
    let _memory = cx
        .uploads
        .acquire_many(UPLOAD_KIB)
        .await
        .map_err(|error| Error::unavailable("stopping", error.to_string(), "repeat the request"))?;
    let unpacked = tokio::task::spawn_blocking(move || {
        let files = archive::unpack(&bytes)?;
        let packed = archive::pack(&files).map_err(|error| {
            vec![Finding::new(
                "",
                "not_an_archive",
                format!("it can't be packed: {error}"),
            )]
        })?;
        Ok((files, packed))
    });
    let unpacked = unpacked
        .await
        .map_err(|error| Error::unavailable("stopping", error.to_string(), "repeat the request"))?;
    let (files, packed) = unpacked.map_err(|findings| invalid("the archive can't be a bundle", findings))?;
    let new = StoredBundle {
        digest: files.digest(),
        archive: sha256_hex(&packed),
        archive_bytes: packed.len() as u64,
        files: files.len() as u64,
        bytes: files.bytes(),
        published_at: cx.clock.now(),
        published_by: platform.principal().id(),
        note,
        activated_at: None,
        is_trusted: true,
    };
    if let Some(there) = cx.bundles.whole(platform, &new.digest).await? {
        return Ok((there, false));
    }
    // One that is mended is written anew as well.
    let record = || {
        cx.audit
            .by(platform, AuditEvent::BundlePublished)
            .came_from(origin)
            .resource("bundle", &new.digest.to_string())
            .detail(&json!({"files": new.files, "bytes": new.bytes, "note": new.note}))
    };
    let put = async { Ok(cx.bundles.put(platform, &new, Bytes::from(packed)).await?) };
    recorded(cx, platform, record, put).await
}

fn checked_note(note: &str) -> Result<Option<String>> {
    let note = note.trim();
    if note.chars().count() > MAX_NOTE || note.chars().any(char::is_control) {
        let message = format!("`note` has at most {MAX_NOTE} characters, and no control characters");
        let finding = Finding::new("query:note", "invalid", message.clone());
        return Err(Error::invalid(
            "parameter_invalid",
            message,
            "shorten it",
            vec![finding],
        ));
    }
    Ok((!note.is_empty()).then(|| note.to_owned()))
}

fn invalid(what: &str, findings: Vec<Finding>) -> Error {
    Error::invalid(
        "bundle_invalid",
        format!("{what}: {} finding(s)", findings.len()),
        "mend them all; `weft check` shows what is wrong with a workspace, docs/bundles.md what a bundle may be",
        findings,
    )
}

fn unknown(digest: &BundleDigest) -> Error {
    Error::not_found(
        "bundle_not_found",
        format!("there is no bundle `{digest}`"),
        "`weft bundles list` shows those that there are",
    )
}

/// All bundles, newest first, and what is active.
///
/// # Errors
/// When storage fails.
pub async fn list(cx: &Context, platform: &PlatformScope) -> Result<(Vec<StoredBundle>, Option<Active>)> {
    let bundles = cx.bundles.list(platform).await?;
    Ok((bundles, cx.bundles.active(platform).await?))
}

/// One, with the paths, sizes and digests of its files.
///
/// # Errors
/// When there is none of this digest, it can't be fetched, or storage fails.
pub async fn get(
    cx: &Context,
    platform: &PlatformScope,
    digest: &BundleDigest,
) -> Result<(StoredBundle, Vec<FileOf>, Option<Active>)> {
    let stored = cx.bundles.get(platform, digest).await?.ok_or_else(|| unknown(digest))?;
    let files = files_of(cx, &Side::Bundle(digest.clone())).await?;
    Ok((stored, described(&files), cx.bundles.active(platform).await?))
}

/// What is active, and the newest activations.
///
/// # Errors
/// When storage fails.
pub async fn active(cx: &Context, platform: &PlatformScope, limit: usize) -> Result<(Option<Active>, Vec<Activation>)> {
    let active = cx.bundles.active(platform).await?;
    Ok((active, cx.bundles.history(platform, limit).await?))
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOf {
    /// Its path.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
}

fn described(files: &Files) -> Vec<FileOf> {
    let one = |(path, content): (&str, &Bytes)| FileOf {
        path: path.to_owned(),
        bytes: content.len() as u64,
        sha256: sha256_hex(content),
    };
    files.iter().map(one).collect()
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// A published bundle.
    Bundle(BundleDigest),
    /// What is active.
    Active,
    /// The deployed folder.
    Folder,
}

impl std::str::FromStr for Side {
    type Err = crate::domain::DigestError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "active" => Ok(Self::Active),
            "folder" => Ok(Self::Folder),
            digest => digest.parse().map(Self::Bundle),
        }
    }
}

/// What a bundle has that the other side has not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff {
    /// Files that only it has, with their bytes.
    pub added: Vec<(String, u64)>,
    /// Files that only the other has.
    pub removed: Vec<(String, u64)>,
    /// Files that are others: path, bytes there, bytes here.
    pub changed: Vec<(String, u64, u64)>,
    /// Whether there are more than are told.
    pub is_cut: bool,
}

/// Compares a bundle with another.
///
/// # Errors
/// When one of them is not there, can't be fetched, or storage fails.
pub async fn diff(cx: &Context, platform: &PlatformScope, digest: &BundleDigest, against: &Side) -> Result<Diff> {
    if cx.bundles.get(platform, digest).await?.is_none() {
        return Err(unknown(digest));
    }
    let against = match against {
        Side::Active => match cx
            .bundles
            .active(platform)
            .await?
            .and_then(|active| active.activation.digest)
        {
            Some(digest) => Side::Bundle(digest),
            None => Side::Folder,
        },
        other => other.clone(),
    };
    if let Side::Bundle(other) = &against
        && cx.bundles.get(platform, other).await?.is_none()
    {
        return Err(unknown(other));
    }
    let here = files_of(cx, &Side::Bundle(digest.clone())).await?;
    let there = files_of(cx, &against).await?;
    let (here, there): (BTreeMap<_, _>, BTreeMap<_, _>) = (here.iter().collect(), there.iter().collect());
    let size = |content: &Bytes| content.len() as u64;
    let mut diff = Diff::default();
    for (path, content) in &here {
        match there.get(path) {
            None => diff.added.push(((*path).to_owned(), size(content))),
            Some(before) if before != content => {
                diff.changed.push(((*path).to_owned(), size(before), size(content)));
            }
            Some(_) => {}
        }
    }
    let removed = there.iter().filter(|(path, _)| !here.contains_key(*path));
    diff.removed = removed
        .map(|(path, content)| ((*path).to_owned(), size(content)))
        .collect();
    diff.is_cut = [diff.added.len(), diff.removed.len(), diff.changed.len()]
        .into_iter()
        .any(|count| count > MAX_DIFF);
    diff.added.truncate(MAX_DIFF);
    diff.removed.truncate(MAX_DIFF);
    diff.changed.truncate(MAX_DIFF);
    Ok(diff)
}

async fn files_of(cx: &Context, side: &Side) -> Result<Files> {
    let bundle = match side {
        Side::Bundle(digest) => Some(cx.catalogs.pinned(&digest.to_string()).await?),
        Side::Active | Side::Folder => None,
    };
    let workspace = cx.catalogs.workspace().to_owned();
    let read = tokio::task::spawn_blocking(move || match &bundle {
        Some(bundle) => Files::of_bundle(bundle),
        None => Files::of_workspace(&workspace),
    });
    let read = read
        .await
        .map_err(|error| Error::unavailable("stopping", error.to_string(), "repeat the request"))?;
    Ok(read?)
}

/// The tag of what is active, for `If-Match`; `0` while nothing was ever activated.
#[must_use]
pub fn tag(active: Option<&Active>) -> String {
    active.map_or(0, |active| active.activation.sequence).to_string()
}

fn same(active: Option<&Active>, if_tag: Option<&str>) -> Result<()> {
    match if_tag {
        Some(expected) if expected != tag(active) => Err(changed()),
        _ => Ok(()),
    }
}

fn changed() -> Error {
    Error::Request {
        kind: Kind::PreconditionFailed,
        code: "activation_changed",
        detail: "what is active is no longer what it was when this was asked for".to_owned(),
        hint: Some("look at what is active (`GET /api/bundles/active`), and repeat it if it is still right".to_owned()),
        findings: Vec::new(),
    }
}

/// Lets a bundle, or without one the deployed folder, be what new runs take. This instance takes it at once, others within
/// [`LOOK_EVERY`] and the time that they need to fetch it. One without any workflow is most often another folder than was meant,
/// and would have every call answered with `workflow_not_found`: it takes `allow_empty`.
///
/// # Errors
/// When there is no such bundle, something is wrong with it, its packages are not there yet, somebody else has activated
/// something, or storage fails. Nothing has changed then.
pub async fn activate(
    cx: &Context,
    platform: &PlatformScope,
    origin: &Origin,
    digest: Option<&BundleDigest>,
    if_tag: Option<&str>,
    allow_empty: bool,
) -> Result<Active> {
    let _alone = cx.catalogs.alone().await;
    let before = cx.bundles.active(platform).await?;
    same(before.as_ref(), if_tag)?;
    let newest = cx.bundles.newest(platform).await?;
    if let Some(before) = &before
        && stands(&before.activation, newest.as_ref())
        && before.activation.digest.as_ref() == digest
        && before.activation.sequence >= cx.catalogs.followed().sequence
    {
        if let Some(digest) = digest {
            still_there(cx, platform, digest, &before.activation).await?;
        }
        return Ok(before.clone());
    }
    let sequence = next_of(cx, platform, before.as_ref(), newest.as_ref()).await?;
    let activation = Activation {
        sequence,
        digest: digest.cloned(),
        act: Act::Activated,
        restores: sequence,
        at: cx.clock.now(),
        by: platform.principal().id(),
        is_trusted: true,
    };
    switch(cx, platform, origin, before.as_ref(), &activation, allow_empty).await
}

/// What was noticed of the code that is offered here, and keeps nothing out of it.
pub async fn noticed(cx: &Context, _: &PlatformScope) -> Vec<Finding> {
    let current = cx.catalogs.at_once().await;
    current.map_or_else(|_| Vec::new(), |current| current.catalog.noticed.clone())
}

/// Brings back what was active before. Twice goes back two activations, down to the deployed folder.
///
/// # Errors
/// As for [`activate`], and when there is nothing before.
pub async fn rollback(cx: &Context, platform: &PlatformScope, origin: &Origin, if_tag: Option<&str>) -> Result<Active> {
    let _alone = cx.catalogs.alone().await;
    let before = cx.bundles.active(platform).await?;
    same(before.as_ref(), if_tag)?;
    let nothing = || {
        Error::conflict(
            "nothing_to_roll_back",
            "nothing was active before what is active now",
            "activate what is to run by its digest: `weft bundles list` shows those that there are",
        )
    };
    let newest = cx.bundles.newest(platform).await?;
    // Where the row that says what is active can't be believed, the history can.
    let trusted = before.as_ref().map(|before| &before.activation);
    let trusted = trusted.filter(|activation| stands(activation, newest.as_ref()));
    let now = trusted.or(newest.as_ref()).ok_or_else(nothing)?;
    let history = cx.bundles.history(platform, HISTORY).await?;
    let earlier = history
        .iter()
        .filter(|entry| entry.is_trusted && entry.sequence < now.restores)
        .find(|entry| entry.digest != now.digest);
    let (digest, restores) = match earlier {
        Some(entry) => (entry.digest.clone(), entry.restores),
        // Before the first activation it was the deployed folder.
        None if now.restores > 0 && now.digest.is_some() => (None, 0),
        None => return Err(nothing()),
    };
    let activation = Activation {
        sequence: next_of(cx, platform, before.as_ref(), newest.as_ref()).await?,
        digest,
        act: Act::RolledBack,
        restores,
        at: cx.clock.now(),
        by: platform.principal().id(),
        is_trusted: true,
    };
    // What was active before was let through then.
    switch(cx, platform, origin, before.as_ref(), &activation, true).await
}

/// One more than whatever is known to have been activated: by the row that says what is active, by the history, or here. Rows
/// that are not signed count as well, for after a change of the signing key none is; but not those with a number that no
/// installation comes to.
async fn next_of(
    cx: &Context,
    platform: &PlatformScope,
    before: Option<&Active>,
    newest: Option<&Activation>,
) -> Result<u64> {
    let top = cx.bundles.history(platform, 1).await?;
    let before = before.map(|before| &before.activation);
    let said = before.into_iter().chain(newest).chain(&top);
    let said = said.filter(|one| one.is_trusted || one.sequence < LARGEST_UNSIGNED);
    let said = said.map(|one| one.sequence).max().unwrap_or_default();
    Ok(said.max(cx.catalogs.followed().sequence).saturating_add(1))
}

/// Looks whether what is active can still be had, and offers it here where it isn't.
async fn still_there(
    cx: &Context,
    platform: &PlatformScope,
    digest: &BundleDigest,
    activation: &Activation,
) -> Result<()> {
    let followed = cx.catalogs.followed();
    let is_offered = followed.digest.as_ref() == Some(&digest.to_string())
        && followed.sequence == activation.sequence
        && followed.trouble.is_none();
    if is_offered {
        whole(cx, platform, digest).await
    } else {
        let current = loaded(cx, platform, digest, true).await?;
        cx.catalogs.activated(activation, Some(current));
        Ok(())
    }
}

/// That a bundle's archive in storage is what was published: other instances have no other.
async fn whole(cx: &Context, platform: &PlatformScope, digest: &BundleDigest) -> Result<()> {
    let stored = cx.bundles.get(platform, digest).await?.ok_or_else(|| unknown(digest))?;
    // Read, and looked at.
    cx.bundles.archive(platform, &stored).await?;
    Ok(())
}

/// Fetches and describes what is to be active, moves the pointer, and offers it here.
async fn switch(
    cx: &Context,
    platform: &PlatformScope,
    origin: &Origin,
    before: Option<&Active>,
    activation: &Activation,
    allow_empty: bool,
) -> Result<Active> {
    let current = match &activation.digest {
        None => None,
        Some(digest) => Some(loaded(cx, platform, digest, allow_empty).await?),
    };
    let activate = async {
        let activated = cx.bundles.activate(platform, before, activation).await;
        activated.map_err(|error| match error {
            store::repo::bundles::Error::Store(error) if error.is_conflict() => changed(),
            error => error.into(),
        })
    };
    let shown = |digest: Option<&BundleDigest>| digest.map_or_else(|| "folder".to_owned(), ToString::to_string);
    let event = match activation.act {
        Act::Activated => AuditEvent::BundleActivated,
        Act::RolledBack => AuditEvent::BundleRolledBack,
    };
    let now = shown(activation.digest.as_ref());
    let was = shown(before.and_then(|before| before.activation.digest.as_ref()));
    let record = || {
        cx.audit
            .by(platform, event)
            .came_from(origin)
            .resource("bundle", &now)
            .changes(&json!({"active": {"from": was, "to": now}}))
            .detail(&json!({"activation": activation.sequence}))
    };
    let active = recorded(cx, platform, record, activate).await?;
    cx.catalogs.activated(activation, current);
    Ok(active)
}

async fn loaded(cx: &Context, platform: &PlatformScope, digest: &BundleDigest, allow_empty: bool) -> Result<Current> {
    whole(cx, platform, digest).await?;
    let current = cx.catalogs.load(digest, PATIENCE).await?;
    let mut findings = current.catalog.findings.clone();
    if findings.is_empty() && current.catalog.workflows.is_empty() && !allow_empty {
        let message = "it declares no workflow, so that every call of one would be answered with 404";
        findings.push(Finding::new("", "no_workflow", message).hint(
            "publish the folder in which `workflows/` lies (`weft publish --workspace DIR`); if it is meant to have none, as where \
             all of them are written through the API, activate it with `--allow-empty` (`?allowEmpty=true`)",
        ));
    }
    if findings.is_empty() {
        Ok(current)
    } else {
        Err(invalid("the bundle can't be activated", findings))
    }
}

/// Deletes a bundle that is not active, that no instance can still believe to be, and that no kept run is pinned to.
///
/// # Errors
/// When there is none of this digest, it is needed, or storage fails.
pub async fn delete(cx: &Context, platform: &PlatformScope, origin: &Origin, digest: &BundleDigest) -> Result<()> {
    let stored = cx.bundles.get(platform, digest).await?.ok_or_else(|| unknown(digest))?;
    let use_of = Uses::read(cx, platform, Some(digest)).await?;
    if let Some(reason) = use_of.reason(cx, digest) {
        return Err(Error::conflict(
            "bundle_in_use",
            format!("the bundle `{digest}` can't be deleted: {reason}"),
            "activate another, and delete it when the runs that are pinned to it are no longer kept",
        ));
    }
    remove(cx, platform, origin, use_of.active.as_ref(), &stored).await
}

async fn remove(
    cx: &Context,
    platform: &PlatformScope,
    origin: &Origin,
    active: Option<&Active>,
    stored: &StoredBundle,
) -> Result<()> {
    let delete = async {
        let deleted = cx.bundles.delete(platform, active, stored).await;
        deleted.map_err(|error| match error {
            store::repo::bundles::Error::Store(error) if error.is_conflict() => changed(),
            error => error.into(),
        })
    };
    let record = || {
        cx.audit
            .by(platform, AuditEvent::BundleDeleted)
            .came_from(origin)
            .resource("bundle", &stored.digest.to_string())
    };
    recorded(cx, platform, record, delete).await
}

/// What came of pruning.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    /// What was deleted, or would be.
    pub deleted: Vec<StoredBundle>,
    /// What stays although it is not among the newest, and why.
    pub kept: Vec<(StoredBundle, String)>,
}

/// Deletes what nobody needs but for the `newest` that were published or active last.
///
/// # Errors
/// When storage fails, or somebody activates something meanwhile; what was deleted before stays so.
pub async fn prune(
    cx: &Context,
    platform: &PlatformScope,
    origin: &Origin,
    newest: usize,
    dry_run: bool,
) -> Result<Pruned> {
    let mut bundles = cx.bundles.list(platform).await?;
    let use_of = Uses::read(cx, platform, None).await?;
    bundles.sort_by_key(|bundle| {
        let last = bundle
            .published_at
            .max(bundle.activated_at.unwrap_or(bundle.published_at));
        std::cmp::Reverse((last, bundle.digest.clone()))
    });
    let mut pruned = Pruned::default();
    let mut active = use_of.active.clone();
    for bundle in bundles.into_iter().skip(newest) {
        if let Some(reason) = use_of.reason(cx, &bundle.digest) {
            pruned.kept.push((bundle, reason));
            continue;
        }
        if !dry_run {
            remove(cx, platform, origin, active.as_ref(), &bundle).await?;
            // Its version has changed with what was just deleted.
            active = cx.bundles.active(platform).await?;
            if tag(active.as_ref()) != tag(use_of.active.as_ref()) {
                return Err(changed());
            }
        }
        pruned.deleted.push(bundle);
    }
    Ok(pruned)
}

/// What bundles are needed for.
struct Uses {
    active: Option<Active>,
    /// Until when each was active that is no longer.
    until: BTreeMap<BundleDigest, Timestamp>,
    /// How many kept runs are pinned to each.
    runs: BTreeMap<String, u64>,
}

impl Uses {
    /// Reads the list of runs of every organization; stops at the first run of `only`.
    async fn read(cx: &Context, platform: &PlatformScope, only: Option<&BundleDigest>) -> Result<Self> {
        let active = cx.bundles.active(platform).await?;
        let newest = cx.bundles.newest(platform).await?;
        let is_told = match &active {
            Some(active) => stands(&active.activation, newest.as_ref()),
            None => newest.is_none(),
        };
        if !is_told {
            return Err(misled(
                "nobody can tell what is active, so nothing is deleted".to_owned(),
            ));
        }
        let mut until = BTreeMap::new();
        let mut replaced_at = None;
        for entry in cx.bundles.history(platform, HISTORY).await? {
            if let (Some(digest), Some(at)) = (entry.digest, replaced_at) {
                until.entry(digest).or_insert(at);
            }
            replaced_at = Some(entry.at);
        }
        let mut uses = Self {
            active,
            until,
            runs: BTreeMap::new(),
        };
        let only = only.map(ToString::to_string);
        let mut after = None;
        loop {
            let page = cx.identities.list_organizations(platform, MAX_PAGE, after).await?;
            for organization in page.items {
                let scope = operator_in(platform, &organization.id);
                let mut query = RunQuery {
                    limit: MAX_PAGE,
                    ..RunQuery::default()
                };
                loop {
                    let (runs, next) = cx.runs.list(&scope, &query).await?;
                    for run in runs {
                        *uses.runs.entry(run.revision).or_default() += 1;
                    }
                    if only.as_ref().is_some_and(|only| uses.runs.contains_key(only)) {
                        return Ok(uses);
                    }
                    let Some(next) = next else { break };
                    query.cursor = Some(next);
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(uses);
            }
        }
    }

    /// Why a bundle stays.
    fn reason(&self, cx: &Context, digest: &BundleDigest) -> Option<String> {
        let is_active = |active: &Active| active.activation.digest.as_ref() == Some(digest);
        if self.active.as_ref().is_some_and(is_active) {
            return Some("it is active".to_owned());
        }
        if let Some(count) = self.runs.get(&digest.to_string()) {
            return Some(format!("{count} kept run(s) are pinned to it"));
        }
        let until = self.until.get(digest)?;
        let since = cx.clock.now().since(*until);
        (since < NOTICED_AFTER).then(|| "it was active until just now, and an instance may not have noticed".to_owned())
    }
}

/// Looks again and again what is active, until the application is gone.
pub async fn listen(cx: Weak<Context>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(cx) = cx.upgrade() else { return };
        // What went wrong is kept there, and was logged.
        drop(cx.catalogs.refresh().await);
        if let Err(error) = tidy(&cx).await {
            tracing::warn!(error = %error, "old copies of the workspace can't be removed, trying again");
        }
    }
}

/// Removes old copies of the workspace, of which each edit makes one: all but the newest, what is offered, and what a run that
/// has not ended is pinned to. How many were removed. Costs a look into the folder while there are few.
///
/// # Errors
/// When runs can't be listed, or a copy can't be removed.
pub async fn tidy(cx: &Context) -> Result<usize> {
    if cx.catalogs.copies() <= COPIES {
        return Ok(0);
    }
    let platform = tenancy::system("bundles");
    let mut pinned = BTreeSet::new();
    let mut after = None;
    loop {
        let page = cx.identities.list_organizations(&platform, MAX_PAGE, after).await?;
        for organization in page.items {
            let scope = operator_in(&platform, &organization.id);
            for status in Status::ALL.iter().filter(|status| !status.is_terminal()) {
                let mut query = RunQuery {
                    status: Some(*status),
                    limit: MAX_PAGE,
                    ..RunQuery::default()
                };
                loop {
                    let (runs, next) = cx.runs.list(&scope, &query).await?;
                    pinned.extend(runs.into_iter().map(|run| run.revision));
                    let Some(next) = next else { break };
                    query.cursor = Some(next);
                }
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    cx.catalogs.prune(pinned, COPIES, cx.clock.now()).await
}

/// What is told of what is offered here, beside the workflows.
#[must_use]
pub fn told(followed: &Followed) -> Value {
    json!({
        "source": if followed.digest.is_some() { "bundle" } else { "folder" },
        "activation": followed.sequence,
        "activatedAt": followed.activated_at,
        "trouble": followed.trouble.as_ref().map(|trouble| json!({
            "digest": trouble.digest,
            "activation": trouble.sequence,
            "code": trouble.code,
            "message": trouble.message,
            "hint": trouble.hint,
            "since": trouble.since,
        })),
    })
}

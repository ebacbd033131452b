//! Which published bundle this instance offers: what is active is looked up, fetched, verified, described, and then offered
//! instead of the one before. What can't be fetched leaves everything as it was, and is told.
//!
//! Attempts that are under way notice nothing: they run in the copy that their run is pinned to, and a copy that was used
//! lately is not removed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::catalog::{Catalogs, Current};
use super::{Error, Result};
use crate::clock::Clock;
use crate::domain::{BundleDigest, Timestamp};
use crate::error::Coded as _;
use crate::runner::BundleRef;
use crate::runner::archive;
use crate::runner::bundle::{self, Files};
use crate::runner::environments::EnvironmentError;
use crate::store::repo::bundles::{self, Activation, Active, Bundles};
use crate::tenancy;

/// How often an instance looks what is active.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long what failed is not tried again by requests.
const FAILURE_HOLDS: Duration = Duration::from_secs(5);
/// Who looks.
const PART: &str = "bundles";
/// How long packages of a bundle are waited for in the background.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(600);

/// What this instance knows of what is active.
#[derive(Debug)]
pub(super) struct Follow {
    bundles: Bundles,
    clock: Arc<dyn Clock>,
    state: Lock<State>,
    /// Held by whoever changes what is offered.
    switching: Mutex<()>,
    /// Held by whoever unpacks.
    fetching: Mutex<()>,
    /// Held by whoever reads a copy to see whether it is whole.
    checking: Mutex<()>,
    /// The folders of copies that were made or found whole since this process began.
    whole: Lock<BTreeSet<PathBuf>>,
}

#[derive(Debug)]
struct State {
    offer: Offer,
    /// The activation that `offer` is of; 0 for none.
    sequence: u64,
    activated_at: Option<Timestamp>,
    trouble: Option<Trouble>,
}

/// What is offered.
#[derive(Debug)]
enum Offer {
    /// The deployed folder.
    Folder,
    /// A published bundle.
    Bundle(Current),
    /// One is active and has never been here.
    Nothing,
}

/// Why what is active is not what is offered here.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// What is active; none where that can't be told, or for the deployed folder.
    pub digest: Option<BundleDigest>,
    /// The number of its activation.
    pub sequence: u64,
    /// The code of the error.
    pub code: &'static str,
    /// In one sentence.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Since when.
    pub since: Timestamp,
    tried: Instant,
}

/// What this instance offers, and where that comes from.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The bundle; none for the deployed folder, and while there is nothing to offer.
    pub digest: Option<String>,
    /// The number of its activation; 0 while nothing was ever activated.
    pub sequence: u64,
    /// When it was activated.
    pub activated_at: Option<Timestamp>,
    /// Why that is not what is active.
    pub trouble: Option<Trouble>,
}

impl Follow {
    pub(super) fn new(bundles: Bundles, clock: Arc<dyn Clock>) -> Self {
        Self {
            bundles,
            clock,
            state: Lock::new(State {
                offer: Offer::Folder,
                sequence: 0,
                activated_at: None,
                trouble: None,
            }),
            switching: Mutex::default(),
            fetching: Mutex::default(),
            checking: Mutex::default(),
            whole: Lock::default(),
        }
    }

    /// That a copy is whole, since it was just made or looked at.
    pub(super) fn note_whole(&self, copy: &BundleRef) {
        self.whole().insert(copy.dir.clone());
    }

    fn whole(&self) -> std::sync::MutexGuard<'_, BTreeSet<PathBuf>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Catalogs {
    /// Looks for the first time what is active, so that nothing else is ever offered; it is fetched when it is asked for.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn begin(&self) -> Result<()> {
        let platform = tenancy::system(PART);
        let active = self.follow.bundles.active(&platform).await?;
        let newest = self.follow.bundles.newest(&platform).await?;
        let mut state = self.follow.state();
        match (active, newest) {
            (None, None) => {}
            (Some(Active { activation, .. }), newest)
                if activation.digest.is_none() && stands(&activation, newest.as_ref()) =>
            {
                state.sequence = activation.sequence;
                state.activated_at = Some(activation.at);
            }
            _ => state.offer = Offer::Nothing,
        }
        Ok(())
    }

    /// What is active, where it is a published bundle. One that was never here is fetched now.
    pub(super) async fn published(&self, patience: Duration) -> Result<Option<Current>> {
        {
            let state = self.follow.state();
            match &state.offer {
                Offer::Folder => return Ok(None),
                Offer::Bundle(current) => return Ok(Some(current.clone())),
                Offer::Nothing => {
                    if let Some(trouble) = &state.trouble
                        && trouble.tried.elapsed() < FAILURE_HOLDS
                    {
                        return Err(trouble.error());
                    }
                }
            }
        }
        let tried = self.refresh_within(patience).await;
        let state = self.follow.state();
        match (&state.offer, tried) {
            (Offer::Folder, _) => Ok(None),
            (Offer::Bundle(current), _) => Ok(Some(current.clone())),
            (Offer::Nothing, Err(error)) => Err(error),
            (Offer::Nothing, Ok(())) => Err(unavailable("the active bundle is not on this instance yet".to_owned())),
        }
    }

    /// Looks what is active, and offers it. What fails leaves what is offered as it is.
    ///
    /// # Errors
    /// Why what is active is not offered.
    pub async fn refresh(&self) -> Result<()> {
        self.refresh_within(BACKGROUND_PATIENCE).await
    }

    async fn refresh_within(&self, patience: Duration) -> Result<()> {
        let _one = self.follow.switching.lock().await;
        let active = match self.follow.bundles.active(&tenancy::system(PART)).await {
            Ok(active) => active,
            Err(error) => {
                let error = Error::from(error);
                self.failed(None, &error);
                return Err(error);
            }
        };
        let Some(Active { activation, .. }) = active else {
            let was_never = {
                let state = self.follow.state();
                state.sequence == 0 && !matches!(state.offer, Offer::Nothing)
            };
            if was_never {
                return Ok(());
            }
            let error = misled(format!("{} is gone", bundles::POINTER));
            self.failed(None, &error);
            return Err(error);
        };
        let done = self.adopt(&activation, patience).await;
        match &done {
            Ok(()) => self.follow.state().trouble = None,
            Err(error) => self.failed(Some(&activation), error),
        }
        done
    }

    /// Offers what an activation says, if it is not offered yet. Under the lock of `switching`.
    async fn adopt(&self, activation: &Activation, patience: Duration) -> Result<()> {
        if !activation.is_trusted {
            return Err(bundles::Error::Untrusted(bundles::POINTER.to_owned()).into());
        }
        let held = {
            let state = self.follow.state();
            if activation.sequence < state.sequence {
                return Err(misled(format!(
                    "activation {} is said to hold, and this instance knows of {} already",
                    activation.sequence, state.sequence
                )));
            }
            match &state.offer {
                Offer::Bundle(current) if activation.sequence == state.sequence => Some(current.bundle.digest.clone()),
                Offer::Folder if activation.sequence == state.sequence => return Ok(()),
                _ => None,
            }
        };
        let now = self.follow.clock.now();
        // Marked as in use; fetched again where somebody has cleared the folder.
        if let Some(digest) = held
            && self.copy(&digest, now).await.is_some()
        {
            return Ok(());
        }
        let newest = self.follow.bundles.newest(&tenancy::system(PART)).await?;
        if let Some(newest) = newest.filter(|newest| newest.sequence > activation.sequence) {
            return Err(misled(format!(
                "activation {} is said to hold, and the history has {} already",
                activation.sequence, newest.sequence
            )));
        }
        let offer = match &activation.digest {
            None => Offer::Folder,
            Some(digest) => Offer::Bundle(self.load(digest, patience).await?),
        };
        self.offer(activation, offer);
        Ok(())
    }

    fn offer(&self, activation: &Activation, offer: Offer) {
        let shown = activation.digest.as_ref().map(ToString::to_string);
        info!(
            bundle.digest = shown.as_deref().unwrap_or("the deployed folder"),
            activation = activation.sequence,
            "code switched"
        );
        if self.code.live && matches!(offer, Offer::Bundle(_)) {
            warn!("a published bundle is active: edits of the workspace folder have no effect until it is rolled back");
        }
        let mut state = self.follow.state();
        state.offer = offer;
        state.sequence = activation.sequence;
        state.activated_at = Some(activation.at);
        state.trouble = None;
    }

    fn failed(&self, activation: Option<&Activation>, error: &Error) {
        let mut state = self.follow.state();
        let message = said(error);
        let before = state.trouble.as_ref().filter(|before| before.message == message);
        let since = before.map_or_else(|| self.follow.clock.now(), |before| before.since);
        if before.is_none() {
            warn!(
                error.code = error.code(),
                error = message,
                "what is active can't be offered here; what was offered before stays"
            );
        }
        state.trouble = Some(Trouble {
            digest: activation.and_then(|activation| activation.digest.clone()),
            sequence: activation.map_or(state.sequence, |activation| activation.sequence),
            code: error.code(),
            message,
            hint: error.hint(),
            since,
            tried: Instant::now(),
        });
    }

    /// A published bundle, fetched, with its packages, and described.
    pub(super) async fn load(&self, digest: &BundleDigest, patience: Duration) -> Result<Current> {
        let mut bundle = self.pinned(&digest.to_string()).await?;
        let (environments, dir) = (self.environments().clone(), bundle.dir.clone());
        let wanted = tokio::task::spawn_blocking(move || environments.wanted(&dir))
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let mut findings = Vec::new();
        match wanted {
            Ok(None) => {}
            Ok(Some(wanted)) => bundle.environment = Some(self.environments().ready(&wanted, patience).await?),
            Err(EnvironmentError::Requirements(wrong)) => findings = wrong,
            Err(error) => return Err(error.into()),
        }
        let catalog = self.describe(&bundle, findings).await?;
        Ok(Current {
            bundle,
            catalog: Arc::new(catalog),
        })
    }

    /// Nobody else changes what is offered, or what is active through this instance, while this is held.
    pub(super) async fn alone(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.follow.switching.lock().await
    }

    /// Offers what was just activated here. For whoever holds [`Catalogs::alone`].
    pub(super) fn activated(&self, activation: &Activation, current: Option<Current>) {
        self.offer(activation, current.map_or(Offer::Folder, Offer::Bundle));
    }

    /// What is offered here, and why it is not what is active.
    #[must_use]
    pub fn followed(&self) -> Followed {
        let state = self.follow.state();
        Followed {
            digest: match &state.offer {
                Offer::Bundle(current) => Some(current.bundle.digest.clone()),
                Offer::Folder | Offer::Nothing => None,
            },
            sequence: state.sequence,
            activated_at: state.activated_at,
            trouble: state.trouble.clone(),
        }
    }

    /// The copy of a digest on this machine: of the folder, or of a published bundle. What is in it was compared with its name
    /// once since this process began, for nobody watches over it while nothing runs.
    async fn copy(&self, digest: &str, now: Timestamp) -> Option<BundleRef> {
        let there = bundle::find(&self.code.bundles, digest);
        if let Some(there) = self.whole(there, digest).await {
            return Some(there);
        }
        let there = self.code.fetched.find(digest, now);
        self.whole(there, digest).await
    }

    /// The same copy, where it is whole.
    async fn whole(&self, there: Option<BundleRef>, digest: &str) -> Option<BundleRef> {
        let Some(there) = there else {
            // What comes back in its place is looked at again.
            self.follow.whole().retain(|dir| dir.exists());
            return None;
        };
        let is_known = || self.follow.whole().contains(&there.dir);
        if is_known() {
            return Some(there);
        }
        let _one = self.follow.checking.lock().await;
        if is_known() {
            return Some(there);
        }
        let looked_at = there.clone();
        let is_whole = tokio::task::spawn_blocking(move || bundle::is_whole(&looked_at)).await;
        if is_whole.is_ok_and(|is_whole| is_whole) {
            self.follow.note_whole(&there);
            return Some(there);
        }
        warn!(
            bundle.digest = digest,
            "the copy of this code on this machine was changed, and is not used"
        );
        None
    }

    /// The code that a run is pinned to; fetched where it was published, and copied again where it is the folder's, if it is not
    /// on this machine.
    ///
    /// # Errors
    /// When it is neither here nor published, is not what was published, has no room, or storage fails.
    pub async fn pinned(&self, digest: &str) -> Result<BundleRef> {
        let now = self.follow.clock.now();
        if let Some(there) = self.copy(digest, now).await {
            return Ok(there);
        }
        let Ok(named) = digest.parse::<BundleDigest>() else {
            return Err(gone(digest));
        };
        let _one = self.follow.fetching.lock().await;
        if let Some(there) = self.copy(digest, now).await {
            return Ok(there);
        }
        let Some(stored) = self.follow.bundles.get(&tenancy::system(PART), &named).await? else {
            return self.copied_again(named).await;
        };
        let bytes = self.follow.bundles.archive(&tenancy::system(PART), &stored).await?;
        let fetched = self.code.fetched.clone();
        let unpacking = tokio::task::spawn_blocking(move || {
            let damaged = || Error::from(bundles::Error::Damaged(named.clone()));
            let files = archive::unpack(&bytes).map_err(|_| damaged())?;
            if files.digest() != named {
                return Err(damaged());
            }
            fetched.keep(&named, &files, now).map_err(|error| {
                warn!(bundle.digest = %named, %error, "published code can't be unpacked here");
                unavailable(format!("the code `{named}` can't be unpacked here: {}", error.told()))
            })
        });
        let copy = unpacking.await.map_err(|error| unavailable(error.to_string()))??;
        self.follow.note_whole(&copy);
        Ok(copy)
    }

    /// The deployed folder, where it is what a digest says.
    async fn copied_again(&self, digest: BundleDigest) -> Result<BundleRef> {
        let (workspace, bundles) = (self.code.workspace.clone(), self.code.bundles.clone());
        let named = digest.to_string();
        let copying = tokio::task::spawn_blocking(move || {
            if Files::of_workspace(&workspace)?.digest() != digest {
                return Ok(None);
            }
            bundle::snapshot(&workspace, &bundles).map(Some)
        });
        match copying.await.map_err(|error| unavailable(error.to_string()))? {
            Ok(Some(copy)) if copy.digest == named => {
                self.follow.note_whole(&copy);
                Ok(copy)
            }
            Ok(_) | Err(_) => Err(gone(&named)),
        }
    }
}

impl Trouble {
    fn error(&self) -> Error {
        Error::unavailable(
            self.code,
            self.message.clone(),
            self.hint.clone().unwrap_or_else(|| "repeat the request".to_owned()),
        )
    }
}

/// Whether a row that says what is active is to be believed, beside the newest of the history.
pub(super) fn stands(activation: &Activation, newest: Option<&Activation>) -> bool {
    activation.is_trusted && newest.is_none_or(|newest| newest.sequence <= activation.sequence)
}

/// What says what is active says nothing that can be followed.
pub(super) fn misled(detail: String) -> Error {
    Error::unavailable(
        "bundle_untrusted",
        detail,
        "somebody may have put an old row back, or taken one away. `weft bundles history` shows what was active; \
         `weft bundles activate BUNDLE` (or `folder`) says anew what is to run",
    )
}

/// Code that nobody has any more.
fn gone(digest: &str) -> Error {
    let shown: String = digest.chars().take(80).collect();
    Error::unavailable(
        "bundle_unavailable",
        format!("the code `{shown}` is not on this instance, and is not published"),
        "publish the workspace as it was (`weft publish`, in its commit): the same files give the same code. Or start a new run, \
         or rerun with `?revision=current`, which take the code of now; published code stays as long as a run needs it",
    )
}

fn unavailable(detail: String) -> Error {
    Error::unavailable(
        "bundle_unavailable",
        detail,
        "repeat the request; `/api/status` says what is in the way",
    )
}

/// An error with what is below it.
fn said(error: &Error) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

//! Who makes an attempt that any instance may make: a row beside the run's header, with a lease.
//!
//! The row is inserted if it is not there, and so arbitrates. It stays until the driver has committed the attempt's end, so
//! nobody else makes the attempt meanwhile. A report is a letter that is written together with it, under its `ETag`: whoever has
//! lost the claim can't report.

use super::runs::{Letter, Runs};
use crate::domain::{AttemptId, RunId, Timestamp};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{ETag, Entity, Key, Match, Operation, Properties, Query, Result};
use crate::tenancy::Scope;

/// The shape of the rows that this build writes.
const SCHEMA: i64 = 1;
/// How often a letter is written against changes of its claim whose outcome was not known.
const TRIES: usize = 8;

/// What a claim says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The attempt is made.
    Making,
    /// Its report is in the run's inbox.
    Reported,
    /// Nobody will see its end.
    Lost,
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// To which attempt.
    pub attempt: AttemptId,
    /// Whose.
    pub instance: String,
    /// Until when whoever has it will have renewed it.
    pub until: Timestamp,
    /// How far it is.
    pub stage: Stage,
    etag: ETag,
}

impl Claim {
    /// Its row.
    #[must_use]
    pub fn row(&self) -> Key {
        key::claim_row(&self.attempt)
    }

    fn properties(&self) -> Properties {
        let stage = match self.stage {
            Stage::Making => "making",
            Stage::Reported => "reported",
            Stage::Lost => "lost",
        };
        Properties::new()
            .with("v", SCHEMA)
            .with("instance", self.instance.clone())
            .with("until", self.until)
            .with("stage", stage)
    }
}

fn read(row: &Entity) -> Result<Claim> {
    let attempt = row.row.as_str().strip_prefix(key::CLAIMS).unwrap_or_default();
    let stage = match row.properties.require_text("stage")? {
        "making" => Stage::Making,
        "reported" => Stage::Reported,
        "lost" => Stage::Lost,
        _ => return Err(Error::corrupt("a claim has an unknown stage")),
    };
    Ok(Claim {
        attempt: attempt
            .parse()
            .map_err(|_| Error::corrupt("a claim names no attempt"))?,
        instance: row.properties.require_text("instance")?.to_owned(),
        until: row.properties.require_time("until")?,
        stage,
        etag: row.etag.clone(),
    })
}

impl Runs {
    /// Claims an attempt for an instance; none when somebody has it. With `again`, which is said after a failure, a claim of the
    /// instance's own is found.
    ///
    /// # Errors
    /// Those of the table store: whether it is claimed is then not known.
    pub async fn claim(
        &self,
        scope: &Scope,
        run: &RunId,
        attempt: &AttemptId,
        instance: &str,
        until: Timestamp,
        again: bool,
    ) -> Result<Option<Claim>> {
        let mut claim = Claim {
            attempt: attempt.clone(),
            instance: instance.to_owned(),
            until,
            stage: Stage::Making,
            etag: ETag(String::new()),
        };
        let operation = Operation::Insert(claim.row(), claim.properties());
        match self.change(scope, run, vec![operation]).await {
            Ok(etag) => {
                claim.etag = etag;
                Ok(Some(claim))
            }
            Err(Error::AlreadyExists { .. }) if !again => Ok(None),
            Err(Error::AlreadyExists { .. }) => {
                let there = self.claim_of(scope, run, attempt).await?;
                Ok(there.filter(|there| there.instance == instance && there.stage == Stage::Making))
            }
            Err(error) => Err(error),
        }
    }

    /// The claim to an attempt.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn claim_of(&self, scope: &Scope, run: &RunId, attempt: &AttemptId) -> Result<Option<Claim>> {
        let table = key::org_table(scope.org());
        let row = self
            .ports
            .tables
            .get(&table, &key::run(run), &key::claim_row(attempt))
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// All claims to attempts of a run that have not ended: one request, as long as there are not more than 1000.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn claims(&self, scope: &Scope, run: &RunId) -> Result<Vec<Claim>> {
        let mut claims = Vec::new();
        let mut continuation = None;
        loop {
            let query = Query::partition(key::run(run)).prefix(key::CLAIMS)?.after(continuation);
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            for row in &page.entities {
                claims.push(read(row)?);
            }
            continuation = page.next;
            if continuation.is_none() {
                return Ok(claims);
            }
        }
    }

    /// Keeps a claim for longer.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody has changed it.
    pub async fn renew_claim(&self, scope: &Scope, run: &RunId, mut claim: Claim, until: Timestamp) -> Result<Claim> {
        claim.until = until;
        self.replace(scope, run, claim).await
    }

    /// Takes a claim from whoever has it: what that one still has to say is not heard.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when it was renewed or has reported at the same moment.
    pub async fn break_claim(&self, scope: &Scope, run: &RunId, mut claim: Claim) -> Result<Claim> {
        claim.stage = Stage::Lost;
        self.replace(scope, run, claim).await
    }

    /// Puts the report of an attempt into its run's inbox, once; whether it is there. It isn't when the claim was lost.
    ///
    /// # Errors
    /// Those of the table store: whether it is there is then not known, and a repeat finds out.
    pub async fn report(&self, scope: &Scope, run: &RunId, claim: &Claim, letter: &Letter) -> Result<bool> {
        let mut claim = claim.clone();
        let letter = Operation::Insert(
            key::inbox_row(&format!("attempt:{}", claim.attempt)),
            self.letter(scope, letter).await?,
        );
        for _ in 0..TRIES {
            claim.stage = Stage::Reported;
            let reported = Operation::Replace(claim.row(), claim.properties(), Match::Exactly(claim.etag.clone()));
            match self.change(scope, run, vec![reported, letter.clone()]).await {
                Ok(_) => return Ok(true),
                Err(Error::PreconditionFailed { .. } | Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
            // It was renewed, or reported, by a request whose answer was lost; or it is somebody else's.
            match self.claim_of(scope, run, &claim.attempt).await? {
                Some(there) if there.instance == claim.instance && there.stage == Stage::Making => claim = there,
                there => return Ok(there.is_some_and(|there| there.stage == Stage::Reported)),
            }
        }
        Ok(false)
    }

    /// Takes a claim back that nothing was done about, or whose attempt nobody wants any more.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn unclaim(&self, scope: &Scope, run: &RunId, claim: &Claim) -> Result<()> {
        let operation = Operation::Delete(claim.row(), Match::Exactly(claim.etag.clone()));
        match self.change(scope, run, vec![operation]).await {
            Ok(_) | Err(Error::PreconditionFailed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn replace(&self, scope: &Scope, run: &RunId, mut claim: Claim) -> Result<Claim> {
        let operation = Operation::Replace(claim.row(), claim.properties(), Match::Exactly(claim.etag.clone()));
        claim.etag = self.change(scope, run, vec![operation]).await?;
        Ok(claim)
    }

    async fn change(&self, scope: &Scope, run: &RunId, operations: Vec<Operation>) -> Result<ETag> {
        let table = key::org_table(scope.org());
        let etags = self.ports.tables.commit(&table, &key::run(run), operations).await?;
        etags
            .into_iter()
            .next()
            .ok_or_else(|| Error::corrupt("a commit answered no ETag"))
    }
}

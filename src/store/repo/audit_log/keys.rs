//! Subjects' keys: found or made, remembered for a while, destroyed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Inner, row, table};
use crate::audit::seal::digest;
use crate::audit::{Owner, Subject, SubjectKey};
use crate::domain::Timestamp;
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{Match, Operation, Result};

/// Most keys that are remembered, about 200 bytes each.
const MAX_REMEMBERED: usize = 4096;
/// How long a key is used without looking whether it still stands. After an erasure, other instances may make records with
/// the destroyed key for as long; nobody can read those.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// Keys that were used lately.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<HashMap<(Owner, String), (SubjectKey, Timestamp)>>);

impl Remembered {
    fn get(&self, name: &(Owner, String), now: Timestamp) -> Option<SubjectKey> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(name)
            .filter(|(_, until)| now < *until)
            .map(|(key, _)| key.clone())
    }

    fn put(&self, name: (Owner, String), key: SubjectKey, now: Timestamp) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_REMEMBERED {
            keys.retain(|_, (_, until)| now < *until);
        }
        if keys.len() >= MAX_REMEMBERED {
            keys.clear();
        }
        keys.insert(name, (key, now.plus(REMEMBERED_FOR)));
    }

    fn forget(&self, name: &(Owner, String)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// What became of the key that a record refers to.
#[derive(Debug, Clone)]
pub(super) enum Found {
    /// Here it is.
    Key(SubjectKey),
    /// It was destroyed on purpose.
    Erased,
    /// There is no trace of it.
    Missing,
}

impl Inner {
    /// A subject's key, made when there is none. Costs nothing while it is remembered, else one read, and one transaction
    /// more for a new subject.
    pub(super) async fn subject_key(&self, owner: &Owner, subject: &Subject) -> Result<SubjectKey> {
        let name = (owner.clone(), digest(subject));
        let now = self.clock.now();
        if let Some(key) = self.keys.get(&name, now) {
            return Ok(key);
        }
        let (table, partition, subject_row) = (table(owner), key::subjects(), key::subject_row(subject.as_str()));
        for _ in 0..3 {
            let stored = self.ports.tables.get(&table, &partition, &subject_row).await?;
            let key = match stored {
                Some(entity) => row::subject_key(&entity.properties)?
                    .ok_or_else(|| Error::corrupt("a subject's row holds a destroyed key"))?,
                None => {
                    let key = SubjectKey::new(self.entropy.bytes(), self.entropy.bytes());
                    let properties = row::subject_properties(&key, now);
                    let operations = vec![
                        Operation::Insert(subject_row.clone(), properties.clone()),
                        Operation::Insert(key::subject_reference_row(key.reference()), properties),
                    ];
                    match self.ports.tables.commit(&table, &partition, operations).await {
                        Ok(_) => key,
                        // Another instance met the subject at the same time: its key counts.
                        Err(error) if error.is_conflict() => continue,
                        Err(error) => return Err(error),
                    }
                }
            };
            self.keys.put(name, key.clone(), now);
            return Ok(key);
        }
        Err(super::contended("the key of an audit subject"))
    }

    /// The reference of a subject's key; nothing when there is no key.
    pub(super) async fn reference(&self, owner: &Owner, subject: &Subject) -> Result<Option<String>> {
        let stored = self
            .ports
            .tables
            .get(&table(owner), &key::subjects(), &key::subject_row(subject.as_str()))
            .await?;
        let key = stored
            .map(|entity| row::subject_key(&entity.properties))
            .transpose()?
            .flatten();
        Ok(key.map(|key| key.reference().to_owned()))
    }

    /// The keys of references, always read anew, so that nobody reads with a key that was destroyed.
    pub(super) async fn open_keys(
        &self,
        owner: &Owner,
        references: impl Iterator<Item = String>,
    ) -> Result<BTreeMap<String, Found>> {
        let table = table(owner);
        let unique: std::collections::BTreeSet<String> = references.collect();
        stream::iter(unique)
            .map(|reference| {
                let table = &table;
                async move {
                    let row = key::subject_reference_row(&reference);
                    let found = match self.ports.tables.get(table, &key::subjects(), &row).await? {
                        None => Found::Missing,
                        Some(entity) => match row::subject_key(&entity.properties) {
                            Ok(Some(key)) => Found::Key(key),
                            Ok(None) => Found::Erased,
                            Err(_) => Found::Missing,
                        },
                    };
                    Ok((reference, found))
                }
            })
            .buffer_unordered(8)
            .try_collect()
            .await
    }

    /// Destroys a subject's key; whether there was one.
    pub(super) async fn erase(&self, owner: &Owner, subject: &Subject) -> Result<bool> {
        let (table, partition, subject_row) = (table(owner), key::subjects(), key::subject_row(subject.as_str()));
        let name = (owner.clone(), digest(subject));
        for _ in 0..3 {
            self.keys.forget(&name);
            let Some(entity) = self.ports.tables.get(&table, &partition, &subject_row).await? else {
                return Ok(false);
            };
            let mut operations = vec![Operation::Delete(subject_row.clone(), Match::Exactly(entity.etag))];
            // A row that can't be read is deleted all the same.
            if let Ok(Some(key)) = row::subject_key(&entity.properties) {
                let row = key::subject_reference_row(key.reference());
                operations.push(Operation::Upsert(row, row::erased_properties(self.clock.now())));
            }
            match self.ports.tables.commit(&table, &partition, operations).await {
                Ok(_) => {
                    self.keys.forget(&name);
                    return Ok(true);
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Err(super::contended("the key of an audit subject"))
    }
}

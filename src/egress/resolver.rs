//! Names to addresses: the system's resolver, or one of a test.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

/// How long a name may take.
const PATIENCE: Duration = Duration::from_secs(5);

type Resolve = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync;

/// How names are resolved.
#[derive(Clone)]
pub struct Resolver(Arc<Resolve>);

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// It does not exist.
    Missing,
    /// It could not be found out.
    Failed,
}

impl Resolver {
    /// A resolver of one's own.
    pub fn new<F>(resolve: F) -> Self
    where
        F: Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
    {
        Self(Arc::new(resolve))
    }

    /// The addresses of a name, at least one. None of them has been judged.
    ///
    /// # Errors
    /// When there is none.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        match tokio::time::timeout(PATIENCE, (self.0)(name.to_owned())).await {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(Unresolved::Missing),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(kind(&error)),
            Err(_) => Err(Unresolved::Failed),
        }
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(|name| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// The C library says in words only what it was.
fn kind(error: &io::Error) -> Unresolved {
    let words = error.to_string();
    if error.kind() == io::ErrorKind::NotFound
        || words.contains("not known")
        || words.contains("No address associated")
        || words.contains("nodename nor servname")
    {
        Unresolved::Missing
    } else {
        Unresolved::Failed
    }
}

//! Blobs, through the official client.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZero;

use async_trait::async_trait;
use azure_core::http::headers::HeaderName;
use azure_core::http::pager::PagerOptions;
use azure_core::http::{Etag, RequestContent, Transport};
use azure_storage_blob::models::{
    AppendBlobClientAppendBlockOptions, AppendBlobClientCreateOptions, BlobClientDeleteOptions,
    BlobClientDownloadOptions, BlobClientGetPropertiesResultHeaders as _, BlobClientSetMetadataOptions,
    BlobClientUploadOptions, BlobContainerClientCreateOptions, BlobContainerClientDeleteOptions,
    BlobContainerClientListBlobsOptions, BlockBlobClientCommitBlockListOptions, BlockBlobClientStageBlockOptions,
    BlockLookupList, HttpRange,
};
use azure_storage_blob::{BlobClient, BlobContainerClient, BlobServiceClient, BlobServiceClientOptions};
use bytes::Bytes;
use futures::TryStreamExt as _;

use super::connection::Settings;
use super::credential::{Access, Scheme};
use super::error::{Failure, Target};
use super::odata::{open_continuation, seal_continuation};
use super::pipeline::{self, Repeat, bounded};
use crate::domain::Timestamp;
use crate::store::error::Error;
use crate::store::port::{
    BlobInfo, BlobPage, BlobPath, BlobStore, ContainerName, Continuation, ETag, MAX_APPEND_BYTES, Match, PART_BYTES,
    Put, Result, Upload, check_part,
};

const PAGE: i32 = 1000;

/// The blobs of an account.
pub(super) struct Blobs {
    service: BlobServiceClient,
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Blobs").field(&self.service.url().as_str()).finish()
    }
}

impl Blobs {
    pub(super) fn new(settings: &Settings, access: &Access, transport: &Transport) -> Result<Self> {
        let client_options = pipeline::client_options(access, Scheme::SharedKey, transport);
        let options = BlobServiceClientOptions {
            client_options,
            ..BlobServiceClientOptions::default()
        };
        let service = BlobServiceClient::new(settings.blob.clone(), access.token(), Some(options))
            .map_err(|error| Failure::from_sdk(error).into_error(&Target::account("opening the blob service")))?;
        Ok(Self { service })
    }

    fn container(&self, container: &ContainerName) -> BlobContainerClient {
        self.service.blob_container_client(container.as_str())
    }

    fn blob(&self, container: &ContainerName, path: &BlobPath) -> BlobClient {
        self.container(container).blob_client(path.as_str())
    }

    /// The size of a blob, or nothing when there is none.
    async fn size(&self, container: &ContainerName, path: &BlobPath) -> Result<Option<u64>> {
        let blob = self.blob(container, path);
        let outcome = bounded(0, async {
            let answer = blob.get_properties(None).await.map_err(Failure::from_sdk)?;
            answer.content_length().map_err(Failure::from_sdk)
        })
        .await;
        match outcome {
            Ok(size) => Ok(Some(size.unwrap_or_default())),
            Err(failure) if failure.is_missing_item() => Ok(None),
            Err(failure) => Err(failure.into_error(&blob_target("reading a blob's size", container, path))),
        }
    }

    /// The bytes of a range, one request. `None` is a missing blob; what lies beyond the end is empty.
    async fn range(
        &self,
        container: &ContainerName,
        path: &BlobPath,
        offset: u64,
        length: u64,
        limit: Option<u64>,
    ) -> Result<Option<Bytes>> {
        let blob = self.blob(container, path);
        let options = BlobClientDownloadOptions {
            // One request and no second one, which a blob that grows meanwhile would fail.
            partition_size: NonZero::new(usize::try_from(length).unwrap_or(usize::MAX)),
            parallel: NonZero::new(1),
            range: Some(HttpRange::new(offset, length)),
            ..BlobClientDownloadOptions::default()
        };
        let outcome = bounded(length, async {
            let answer = blob.download(Some(options)).await.map_err(Failure::from_sdk)?;
            if let (Some(limit), Some(size)) = (limit, whole_size(&answer.headers))
                && size > limit
            {
                return Ok(Err(size));
            }
            answer.body.collect().await.map(Ok).map_err(Failure::from_sdk)
        })
        .await;
        match outcome {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(size)) => Err(Error::TooLarge {
                what: format!("blob `{path}`"),
                size: usize::try_from(size).unwrap_or(usize::MAX),
                limit: usize::try_from(limit.unwrap_or_default()).unwrap_or(usize::MAX),
                unit: "bytes",
            }),
            Err(failure) if failure.status() == Some(416) => Ok(Some(Bytes::new())),
            // The emulator describes the range of an empty blob in a way that the client can't read.
            Err(Failure::Unreadable(_)) if offset == 0 && self.size(container, path).await? == Some(0) => {
                Ok(Some(Bytes::new()))
            }
            Err(failure) if failure.is_missing_item() => Ok(None),
            Err(failure) => Err(failure.into_error(&blob_target("reading a blob", container, path))),
        }
    }

    async fn append_block(&self, blob: &BlobClient, at: u64, bytes: &Bytes) -> std::result::Result<(), Failure> {
        let position = i64::try_from(at).unwrap_or(i64::MAX);
        let options = AppendBlobClientAppendBlockOptions {
            append_position: Some(position),
            ..Default::default()
        };
        let size = bytes.len() as u64;
        let client = blob.append_blob_client();
        bounded(size, async {
            let content = RequestContent::from(bytes.to_vec());
            client
                .append_block(content, size, Some(options))
                .await
                .map_err(Failure::from_sdk)
        })
        .await?;
        Ok(())
    }
}

#[async_trait]
impl BlobStore for Blobs {
    async fn create_container(&self, container: &ContainerName) -> Result<()> {
        let client = self.container(container);
        let options = BlobContainerClientCreateOptions {
            method_options: Repeat::Harmless.options(),
            ..Default::default()
        };
        match bounded(0, async {
            client.create(Some(options)).await.map_err(Failure::from_sdk)
        })
        .await
        {
            Ok(_) => Ok(()),
            Err(failure) if failure.code() == "ContainerAlreadyExists" => Ok(()),
            Err(failure) => Err(failure.into_error(&Target::container("creating a container", container.as_str()))),
        }
    }

    async fn delete_container(&self, container: &ContainerName) -> Result<()> {
        let client = self.container(container);
        let options = BlobContainerClientDeleteOptions {
            method_options: Repeat::Harmless.options(),
            ..Default::default()
        };
        match bounded(0, async {
            client.delete(Some(options)).await.map_err(Failure::from_sdk)
        })
        .await
        {
            Ok(_) => Ok(()),
            Err(failure) if failure.status() == Some(404) => Ok(()),
            Err(failure) => Err(failure.into_error(&Target::container("deleting a container", container.as_str()))),
        }
    }

    async fn put(&self, container: &ContainerName, path: &BlobPath, bytes: Bytes, put: Put) -> Result<()> {
        let (condition, repeat) = match put {
            // A repeated create would meet its own first try.
            Put::Create => (Some(Etag::from("*")), Repeat::Never),
            Put::Overwrite => (None, Repeat::Harmless),
        };
        let options = BlobClientUploadOptions {
            blob_content_type: Some("application/octet-stream".into()),
            if_none_match: condition,
            method_options: repeat.options(),
            ..BlobClientUploadOptions::default()
        };
        let blob = self.blob(container, path);
        bounded(bytes.len() as u64, async {
            blob.upload(RequestContent::from(bytes.to_vec()), Some(options))
                .await
                .map_err(Failure::from_sdk)
        })
        .await
        .map(|_| ())
        .map_err(|failure| failure.into_error(&blob_target("writing a blob", container, path)))
    }

    async fn get(&self, container: &ContainerName, path: &BlobPath, limit: u64) -> Result<Option<Bytes>> {
        // One byte more than allowed, so that an answer says whether there is more. The header tells the size at once.
        let limit = limit.min(1 << 40);
        self.range(container, path, 0, limit + 1, Some(limit)).await
    }

    async fn read(
        &self,
        container: &ContainerName,
        path: &BlobPath,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>> {
        if length == 0 || offset > i64::MAX.unsigned_abs() {
            return Ok(self.size(container, path).await?.map(|_| Bytes::new()));
        }
        self.range(container, path, offset, length.min(1 << 40), None).await
    }

    async fn append(&self, container: &ContainerName, path: &BlobPath, at: u64, bytes: Bytes) -> Result<()> {
        let (size, limit) = (bytes.len(), MAX_APPEND_BYTES);
        if size > limit {
            return Err(Error::TooLarge {
                what: format!("an append to `{path}`"),
                size,
                limit,
                unit: "bytes",
            });
        }
        let target = blob_target("appending to a blob", container, path);
        if bytes.is_empty() {
            return Err(Error::Malformed {
                what: path.to_string(),
                expected: "append of at least one byte",
            });
        }
        let blob = self.blob(container, path);
        let mut outcome = self.append_block(&blob, at, &bytes).await;
        if at == 0 && outcome.as_ref().is_err_and(Failure::is_missing_item) {
            let options = AppendBlobClientCreateOptions {
                if_none_match: Some(Etag::from("*")),
                method_options: Repeat::Harmless.options(),
                ..AppendBlobClientCreateOptions::default()
            };
            let client = blob.append_blob_client();
            match bounded(0, async {
                client.create(Some(options)).await.map_err(Failure::from_sdk)
            })
            .await
            {
                Ok(_) => {}
                // Somebody else made it meanwhile: the position decides.
                Err(failure) if failure.code() == "BlobAlreadyExists" => {}
                Err(failure) => return Err(failure.into_error(&target)),
            }
            outcome = self.append_block(&blob, at, &bytes).await;
        }
        outcome.map_err(|failure| match failure.code() {
            // There is a blob, and it was put whole.
            "InvalidBlobType" => Error::AlreadyExists {
                what: path.to_string(),
                index: 0,
            },
            _ => failure.into_error(&target),
        })
    }

    async fn lay_aside(
        &self,
        container: &ContainerName,
        path: &BlobPath,
        upload: Upload,
        at: u64,
        bytes: Bytes,
    ) -> Result<()> {
        check_part(path, at, bytes.len())?;
        let client = self.blob(container, path).block_blob_client();
        let options = BlockBlobClientStageBlockOptions {
            method_options: Repeat::Harmless.options(),
            ..Default::default()
        };
        let size = bytes.len() as u64;
        bounded(size, async {
            client
                .stage_block(
                    block_id(upload, at).as_bytes(),
                    size,
                    RequestContent::from(bytes.to_vec()),
                    Some(options),
                )
                .await
                .map_err(Failure::from_sdk)
        })
        .await
        .map(drop)
        .map_err(|failure| failure.into_error(&blob_target("laying a part of a blob aside", container, path)))
    }

    async fn assemble(&self, container: &ContainerName, path: &BlobPath, upload: Upload, size: u64) -> Result<()> {
        let target = blob_target("making a blob of its parts", container, path);
        let parts = (0..size).step_by(PART_BYTES);
        let list = BlockLookupList {
            latest: Some(parts.map(|at| block_id(upload, at).into_bytes()).collect()),
            ..Default::default()
        };
        let content = list
            .try_into()
            .map_err(|error| Failure::from_sdk(error).into_error(&target))?;
        let client = self.blob(container, path).block_blob_client();
        let options = BlockBlobClientCommitBlockListOptions {
            blob_content_type: Some("application/octet-stream".into()),
            if_none_match: Some(Etag::from("*")),
            // A repeated one would meet its own first try.
            method_options: Repeat::Never.options(),
            ..Default::default()
        };
        bounded(0, async {
            client
                .commit_block_list(content, Some(options))
                .await
                .map_err(Failure::from_sdk)
        })
        .await
        .map(drop)
        .map_err(|failure| match failure.code() {
            "InvalidBlockList" | "InvalidBlockId" => Error::PreconditionFailed {
                what: path.to_string(),
                index: 0,
            },
            _ => failure.into_error(&target),
        })
    }

    /// The service throws away what is a week old.
    async fn throw_away(&self, _: &ContainerName, _: &BlobPath, _: Upload) -> Result<()> {
        Ok(())
    }

    async fn touch(&self, container: &ContainerName, path: &BlobPath) -> Result<bool> {
        let blob = self.blob(container, path);
        let options = BlobClientSetMetadataOptions {
            method_options: Repeat::Harmless.options(),
            ..Default::default()
        };
        match bounded(0, async {
            blob.set_metadata(&HashMap::new(), Some(options))
                .await
                .map_err(Failure::from_sdk)
        })
        .await
        {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_missing_item() => Ok(false),
            Err(failure) => Err(failure.into_error(&blob_target("touching a blob", container, path))),
        }
    }

    async fn delete(&self, container: &ContainerName, path: &BlobPath, condition: Match) -> Result<bool> {
        let blob = self.blob(container, path);
        let options = BlobClientDeleteOptions {
            if_match: match condition {
                Match::Any => None,
                Match::Exactly(etag) => Some(Etag::from(etag.0)),
            },
            method_options: Repeat::Never.options(),
            ..Default::default()
        };
        match bounded(0, async { blob.delete(Some(options)).await.map_err(Failure::from_sdk) }).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_missing_item() => Ok(false),
            Err(failure) => Err(failure.into_error(&blob_target("deleting a blob", container, path))),
        }
    }

    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<Continuation>) -> Result<BlobPage> {
        let scope = [container.as_str(), prefix];
        let marker = after
            .map(|after| open_continuation(&scope, &after))
            .transpose()?
            .map(|[marker, _]| marker);
        let options = BlobContainerClientListBlobsOptions {
            marker,
            maxresults: Some(PAGE),
            prefix: (!prefix.is_empty()).then(|| prefix.to_owned()),
            method_options: PagerOptions::default(),
            ..BlobContainerClientListBlobsOptions::default()
        };
        let client = self.container(container);
        let target = Target::container("listing blobs", container.as_str());
        let page = bounded(0, async {
            let mut pages = client
                .list_blobs(Some(options))
                .map_err(Failure::from_sdk)?
                .into_pages();
            let page = pages.try_next().await.map_err(Failure::from_sdk)?;
            page.ok_or_else(|| Failure::Unreadable("no page".into()))?
                .into_model()
                .map_err(Failure::from_sdk)
        })
        .await
        .map_err(|failure| failure.into_error(&target))?;
        let mut blobs = Vec::with_capacity(page.blob_items.len());
        for item in page.blob_items {
            let properties = item.properties.unwrap_or_default();
            let modified = properties.last_modified.map(|at| at.unix_timestamp_nanos() / 1_000_000);
            blobs.push(BlobInfo {
                path: BlobPath::new(item.name.unwrap_or_default())?,
                size: properties.content_length.unwrap_or_default(),
                etag: ETag(quoted(
                    &properties.etag.map(|etag| etag.to_string()).unwrap_or_default(),
                )),
                // One whose time is not told counts as new.
                modified: modified
                    .and_then(|at| i64::try_from(at).ok())
                    .map_or_else(|| Timestamp::from_millis(i64::MAX), Timestamp::from_millis),
            });
        }
        let next = page.next_marker.filter(|marker| !marker.is_empty());
        Ok(BlobPage {
            blobs,
            next: next.map(|marker| seal_continuation(&scope, [marker, String::new()])),
        })
    }
}

/// As a header has it: in a list, versions are not quoted.
fn quoted(etag: &str) -> String {
    format!("\"{}\"", etag.trim_matches('"'))
}

/// Of one length for every part of a blob, as the service wants it.
fn block_id(upload: Upload, at: u64) -> String {
    format!("{:016x}-{at:012x}", upload.0)
}

fn blob_target<'a>(operation: &'static str, container: &'a ContainerName, path: &'a BlobPath) -> Target<'a> {
    Target::item(operation, container.as_str(), path.as_str())
}

/// The size of the whole blob, from `bytes 0-9/100` or, when all of it came, from the length.
fn whole_size(headers: &azure_core::http::headers::Headers) -> Option<u64> {
    let text = |name| headers.get_optional_str(&HeaderName::from_static(name));
    match text("content-range") {
        Some(range) => range.rsplit_once('/')?.1.parse().ok(),
        None => text("content-length")?.parse().ok(),
    }
}

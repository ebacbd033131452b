//! Tables over REST, on the SDK's pipeline. Why not a crate: `docs/adr/0001-own-table-client.md`.
//!
//! A commit of one operation is a plain request, of more an entity-group transaction. A commit is sent again only when it
//! can't have arrived; whatever else goes wrong leaves its outcome unknown, which the port calls `Unavailable`.

use std::fmt;

use async_trait::async_trait;
use azure_core::http::headers::HeaderName;
use azure_core::http::{Method, Pipeline, PipelineSendOptions, RawResponse, Request, Transport};
use url::Url;

use super::connection::Settings;
use super::credential::{Access, Scheme};
use super::error::{Answer, Failure, Target, code, request_id};
use super::odata::{self, RowRequest, Verb};
use super::pipeline::{self, Repeat};
use crate::clock::Entropy;
use crate::store::port::{ETag, Entity, Key, Operation, Page, Query, Result, TableName, TableStore, check_operations};

/// The version of the service's protocol; the first that takes tokens.
const VERSION: &str = "2020-12-06";
const JSON: &str = "application/json;odata=minimalmetadata";

/// The tables of an account.
pub(super) struct Tables {
    /// Without a trailing slash.
    base: String,
    pipeline: Pipeline,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tables").field(&self.base).finish()
    }
}

impl Tables {
    pub(super) fn new(settings: &Settings, access: &Access, transport: &Transport) -> Self {
        let options = pipeline::client_options(access, Scheme::SharedKeyLite, transport);
        let bearer = access.bearer().into_iter().collect();
        let pipeline = Pipeline::new(
            Some("weft"),
            Some(env!("CARGO_PKG_VERSION")),
            options,
            Vec::new(),
            bearer,
            None,
        );
        Self {
            base: settings.table.as_str().trim_end_matches('/').to_owned(),
            pipeline,
        }
    }

    fn table(&self, table: &TableName) -> String {
        format!("{}/{table}", self.base)
    }

    async fn send(
        &self,
        method: Method,
        address: &str,
        headers: &[(&'static str, &str)],
        body: Option<String>,
        repeat: Option<Repeat>,
    ) -> std::result::Result<RawResponse, Failure> {
        let url = Url::parse(address).map_err(|_| Failure::Unreadable("no address".into()))?;
        let mut request = Request::new(url, method);
        request.insert_header("accept", JSON);
        request.insert_header("x-ms-version", VERSION);
        request.insert_header("dataserviceversion", "3.0;");
        for (name, value) in headers {
            request.insert_header(*name, (*value).to_owned());
        }
        let bytes = body.as_ref().map_or(0, String::len);
        if let Some(body) = body {
            request.set_body(body);
        }
        let context = repeat.map(Repeat::context).unwrap_or_default();
        // The service's errors are read here: the SDK expects another shape, and would keep the body in its error.
        let options = PipelineSendOptions {
            skip_checks: true,
            ..PipelineSendOptions::default()
        };
        let response = pipeline::bounded(bytes as u64, async {
            self.pipeline
                .send(&context, &mut request, Some(options))
                .await
                .map_err(Failure::from_sdk)
        })
        .await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refusal(&response))
        }
    }

    async fn commit_one(&self, request: RowRequest) -> std::result::Result<ETag, Failure> {
        let method = match request.verb {
            Verb::Post => Method::Post,
            Verb::Put => Method::Put,
            Verb::Patch => Method::Patch,
            Verb::Delete => Method::Delete,
        };
        let mut headers = Vec::new();
        if request.body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        if request.verb == Verb::Post {
            headers.push(("prefer", "return-no-content"));
        }
        if let Some(etag) = &request.if_match {
            headers.push(("if-match", etag));
        }
        let response = self
            .send(method, &request.address, &headers, request.body, None)
            .await?;
        Ok(ETag(header(&response, "etag")))
    }

    async fn commit_batch(&self, requests: &[RowRequest]) -> std::result::Result<Vec<ETag>, Failure> {
        let mark = u128::from_be_bytes(Entropy::System.bytes());
        let (batch, changeset) = (format!("batch_{mark:032x}"), format!("changeset_{mark:032x}"));
        let body = odata::batch_body(&batch, &changeset, requests);
        let content_type = format!("multipart/mixed; boundary={batch}");
        let address = format!("{}/$batch", self.base);
        let headers = [("content-type", content_type.as_str())];
        let response = self.send(Method::Post, &address, &headers, Some(body), None).await?;
        let (content_type, id) = (header(&response, "content-type"), request_id(response.headers()));
        let body = String::from_utf8_lossy(response.body());
        odata::read_batch(&content_type, &body, requests.len()).map_err(|failure| match failure {
            Failure::Answer(answer) => Failure::Answer(Answer {
                request_id: id,
                ..answer
            }),
            other => other,
        })
    }
}

#[async_trait]
impl TableStore for Tables {
    async fn create_table(&self, table: &TableName) -> Result<()> {
        let body = serde_json::json!({ "TableName": table.as_str() }).to_string();
        let headers = [("content-type", "application/json"), ("prefer", "return-no-content")];
        let address = format!("{}/Tables", self.base);
        match self
            .send(Method::Post, &address, &headers, Some(body), Some(Repeat::Harmless))
            .await
        {
            Ok(_) => Ok(()),
            Err(failure) if failure.code() == "TableAlreadyExists" => Ok(()),
            Err(failure) => Err(failure.into_error(&Target::container("creating a table", table.as_str()))),
        }
    }

    async fn delete_table(&self, table: &TableName) -> Result<()> {
        let address = format!("{}/Tables(%27{table}%27)", self.base);
        match self
            .send(Method::Delete, &address, &[], None, Some(Repeat::Harmless))
            .await
        {
            Ok(_) => Ok(()),
            Err(failure) if failure.status() == Some(404) => Ok(()),
            Err(failure) => Err(failure.into_error(&Target::container("deleting a table", table.as_str()))),
        }
    }

    async fn get(&self, table: &TableName, partition: &Key, row: &Key) -> Result<Option<Entity>> {
        let address = format!("{}{}", self.table(table), odata::row_address(partition, row));
        match self.send(Method::Get, &address, &[], None, None).await {
            Ok(response) => odata::read_row(response.body()).map(Some),
            Err(failure) if failure.is_missing_item() => Ok(None),
            Err(failure) => Err(failure.into_error(&Target::item("reading a row", table.as_str(), row.as_str()))),
        }
    }

    async fn query(&self, table: &TableName, query: Query) -> Result<Page> {
        let parameters = odata::query_parameters(table.as_str(), &query)?;
        let address = format!("{}()?{parameters}", self.table(table));
        let response = self
            .send(Method::Get, &address, &[], None, None)
            .await
            .map_err(|failure| failure.into_error(&Target::container("querying rows", table.as_str())))?;
        let entities = odata::read_rows(response.body())?;
        let partition = header(&response, "x-ms-continuation-nextpartitionkey");
        let row = header(&response, "x-ms-continuation-nextrowkey");
        let next = (!partition.is_empty())
            .then(|| odata::seal_continuation(&[table.as_str(), query.partition.as_str()], [partition, row]));
        Ok(Page { entities, next })
    }

    async fn commit(&self, table: &TableName, partition: &Key, operations: Vec<Operation>) -> Result<Vec<ETag>> {
        check_operations(partition, &operations)?;
        let address = self.table(table);
        let requests = operations
            .iter()
            .enumerate()
            .map(|(index, operation)| odata::row_request(&address, partition, operation, index))
            .collect::<Result<Vec<_>>>()?;
        let outcome = match <[RowRequest; 1]>::try_from(requests) {
            Ok([request]) => self.commit_one(request).await.map(|etag| vec![etag]),
            Err(requests) => self.commit_batch(&requests).await,
        };
        let mut etags = outcome.map_err(|failure| {
            let index = match &failure {
                Failure::Answer(answer) => answer.index,
                _ => 0,
            };
            let row = operations.get(index).map_or("", |operation| operation.row().as_str());
            failure.into_error(&Target {
                operation: "writing rows",
                container: table.as_str(),
                item: row,
            })
        })?;
        for (etag, operation) in etags.iter_mut().zip(&operations) {
            if matches!(operation, Operation::Delete(..)) {
                etag.0.clear();
            }
        }
        Ok(etags)
    }
}

fn header(response: &RawResponse, name: &'static str) -> String {
    response
        .headers()
        .get_optional_str(&HeaderName::from_static(name))
        .unwrap_or_default()
        .to_owned()
}

/// The code is in the body or, where the body has none, in a header.
fn refusal(response: &RawResponse) -> Failure {
    let (mut found, index) = odata::read_refusal(response.body());
    if found.is_empty() {
        found = code(&header(response, "x-ms-error-code"));
    }
    Failure::Answer(Answer {
        status: u16::from(response.status()),
        code: found,
        index: index.unwrap_or_default(),
        request_id: request_id(response.headers()),
    })
}

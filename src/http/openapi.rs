//! The description of the API, generated from the handlers.

use base64::Engine as _;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};

use super::api::{
    approvals, artifacts, audit, bundles, data_providers, docs, environments, health, hooks, me, node_types, plans,
    policy, quarantine, queue_triggers, recordings, run_events, runs, schedules, secrets, usage, workflow_assignments,
    workflow_drafts, workflow_files, workflow_revisions, workflows,
};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Weft", description = "A multi-tenant workflow engine. Errors are `application/problem+json` with a stable `code`, a `hint`, and every finding at once."),
    paths(
        workflows::list, workflows::get, workflows::execute, plans::make,
        workflow_drafts::get, workflow_drafts::put, workflow_drafts::discard, workflow_drafts::validate,
        workflow_revisions::publish, workflow_revisions::list, workflow_revisions::get, workflow_revisions::diff,
        workflow_revisions::restore, workflow_revisions::rollback, workflow_revisions::archive,
        workflow_revisions::unarchive, workflow_revisions::trust, workflow_files::export, workflow_files::import,
        workflow_assignments::list, workflow_assignments::get, workflow_assignments::put, workflow_assignments::delete,
    approvals::decide, approvals::decide_by_link, approvals::link, approvals::list, approvals::look, artifacts::download, artifacts::list, quarantine::list, quarantine::requeue, recordings::get, run_events::events, runs::again, runs::cancel, runs::get, runs::items, runs::list, runs::logs, runs::output, runs::resume, runs::steps,
        audit::list, data_providers::list, data_providers::provide, me::get,
        usage::get, policy::get, policy::put, policy::effective, policy::get_platform, policy::put_platform,
        bundles::list, bundles::publish, bundles::active, bundles::get, bundles::diff, bundles::activate,
        bundles::rollback, bundles::prune, bundles::delete,
        schedules::list, schedules::create, schedules::get, schedules::put, schedules::delete, schedules::trigger,
        schedules::preview,
        secrets::list, secrets::write, secrets::delete,
        hooks::deliver, hooks::challenge, hooks::list, hooks::create, hooks::get, hooks::replace, hooks::delete,
        hooks::rotate, hooks::deliveries,
        queue_triggers::list, queue_triggers::create, queue_triggers::get, queue_triggers::replace,
        queue_triggers::delete, queue_triggers::access, queue_triggers::send, queue_triggers::list_set_aside,
        queue_triggers::get_set_aside, queue_triggers::put_back, queue_triggers::drop_set_aside,
        node_types::list, node_types::get, node_types::version, node_types::used_by, node_types::list_all,
        node_types::draft, node_types::put_draft, node_types::delete_draft, node_types::publish, node_types::deprecate,
        node_types::test,
        health::health, health::ready, health::status, environments::current, docs::description, docs::page,
    ),
    security(("functionKey" = []), ("functionKeyInQuery" = []), ("clientPrincipal" = [])),
    modifiers(&Schemes)
)]
struct Description;

struct Schemes;

impl utoipa::Modify for Schemes {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        let header = |name: &str, about: &str| {
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, about)))
        };
        components.add_security_scheme(
            "functionKey",
            header("x-functions-key", "A function key, verified by Weft itself"),
        );
        components.add_security_scheme(
            "functionKeyInQuery",
            SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::with_description(
                "code",
                "The same in the query",
            ))),
        );
        components.add_security_scheme(
            "hookSignature",
            header(
                "X-Weft-Signature",
                "The signature of a delivery, in the header and the form of the hook's scheme",
            ),
        );
        components.add_security_scheme(
            "clientPrincipal",
            header(
                "X-MS-CLIENT-PRINCIPAL",
                "Set by the platform's front door, where the operator trusts one",
            ),
        );
    }
}

/// The description as OpenAPI 3.1.
#[must_use]
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// The hash by which a content security policy lets the page's own script run.
#[must_use]
pub fn script_hash(page: &str) -> String {
    let script = page
        .split_once("<script>")
        .and_then(|(_, rest)| rest.split_once("</script>"))
        .map_or("", |(script, _)| script);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, script.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

//! The table of routes: path, methods, who may, handler. Tests read it: every route is tried by every kind of caller.

use axum::routing::{MethodRouter, delete, get, post, put};

use super::api::{
    approvals, artifacts, audit, bundles, data_providers, docs, environments, health, hooks, me, node_types, plans,
    policy, quarantine, queue_triggers, recordings, run_events, runs, schedules, secrets, usage, workflow_assignments,
    workflow_drafts, workflow_files, workflow_revisions, workflows,
};
use super::state::Gate;

/// Who is let in by a route before its use case decides about the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody. The only routes without a caller, and this list may only shrink.
    Open,
    /// Whoever has signed the delivery with a secret of the hook in the path; neither a key nor a principal counts.
    Hook,
    /// Whoever has a link that this installation has signed, for the one thing that the link is for.
    Link,
    /// An authenticated caller.
    Caller,
    /// An authenticated caller in an organization.
    Organization,
}

/// One path and method.
#[derive(Debug)]
pub struct Route {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// With parameters in braces.
    pub path: &'static str,
    /// Who is let in.
    pub access: Access,
    /// What answers.
    pub handler: MethodRouter<Gate>,
}

/// All routes.
#[must_use]
pub fn table() -> Vec<Route> {
    use Access::{Caller, Hook, Link, Open, Organization};
    let at = |path, access, handler| Route {
        method: "GET",
        path,
        access,
        handler,
    };
    let to = |path, access, handler| Route {
        method: "POST",
        path,
        access,
        handler,
    };
    let into = |path, access, handler| Route {
        method: "PUT",
        path,
        access,
        handler,
    };
    let on = |method, path, handler| Route {
        method,
        path,
        access: Organization,
        handler,
    };
    vec![
        at("/api/health", Open, get(health::health)),
        at("/api/ready", Open, get(health::ready)),
        at("/api/openapi.json", Open, get(docs::description)),
        at("/api/docs", Open, get(docs::page)),
        at("/api/me", Caller, get(me::get)),
        at("/api/status", Caller, get(health::status)),
        at("/api/environments/current", Caller, get(environments::current)),
        at("/api/bundles", Caller, get(bundles::list)),
        to("/api/bundles", Caller, post(bundles::publish)),
        at("/api/bundles/active", Caller, get(bundles::active)),
        to("/api/bundles/rollback", Caller, post(bundles::rollback)),
        to("/api/bundles/prune", Caller, post(bundles::prune)),
        at("/api/bundles/{digest}", Caller, get(bundles::get)),
        at("/api/bundles/{digest}/diff", Caller, get(bundles::diff)),
        to("/api/bundles/{digest}/activate", Caller, post(bundles::activate)),
        Route {
            method: "DELETE",
            path: "/api/bundles/{digest}",
            access: Caller,
            handler: delete(bundles::delete),
        },
        at("/api/workflows", Organization, get(workflows::list)),
        at("/api/workflows/{name}", Organization, get(workflows::get)),
        to("/api/workflows/{name}/execute", Organization, post(workflows::execute)),
        to("/api/workflows/{name}/plan", Organization, post(plans::make)),
        at("/api/workflows/{name}/draft", Organization, get(workflow_drafts::get)),
        on("PUT", "/api/workflows/{name}/draft", put(workflow_drafts::put)),
        on(
            "DELETE",
            "/api/workflows/{name}/draft",
            delete(workflow_drafts::discard),
        ),
        to(
            "/api/workflows/{name}/validate",
            Organization,
            post(workflow_drafts::validate),
        ),
        to(
            "/api/workflows/{name}/publish",
            Organization,
            post(workflow_revisions::publish),
        ),
        at(
            "/api/workflows/{name}/revisions",
            Organization,
            get(workflow_revisions::list),
        ),
        at(
            "/api/workflows/{name}/revisions/{number}",
            Organization,
            get(workflow_revisions::get),
        ),
        at(
            "/api/workflows/{name}/revisions/{number}/diff",
            Organization,
            get(workflow_revisions::diff),
        ),
        to(
            "/api/workflows/{name}/revisions/{number}/restore",
            Organization,
            post(workflow_revisions::restore),
        ),
        to(
            "/api/workflows/{name}/rollback",
            Organization,
            post(workflow_revisions::rollback),
        ),
        to(
            "/api/workflows/{name}/archive",
            Organization,
            post(workflow_revisions::archive),
        ),
        to(
            "/api/workflows/{name}/unarchive",
            Organization,
            post(workflow_revisions::unarchive),
        ),
        at(
            "/api/workflows/{name}/export",
            Organization,
            get(workflow_files::export),
        ),
        to("/api/workflows/import", Organization, post(workflow_files::import)),
        at(
            "/api/workflows/{name}/assignments",
            Organization,
            get(workflow_assignments::list),
        ),
        at(
            "/api/workflows/{name}/assignments/{user}",
            Organization,
            get(workflow_assignments::get),
        ),
        on(
            "PUT",
            "/api/workflows/{name}/assignments/{user}",
            put(workflow_assignments::put),
        ),
        on(
            "DELETE",
            "/api/workflows/{name}/assignments/{user}",
            delete(workflow_assignments::delete),
        ),
        on("PUT", "/api/workflows/{name}/trust", put(workflow_revisions::trust)),
        at("/api/runs", Organization, get(runs::list)),
        at("/api/runs/{id}", Organization, get(runs::get)),
        at("/api/runs/{id}/steps", Organization, get(runs::steps)),
        at("/api/runs/{id}/steps/{step}/items", Organization, get(runs::items)),
        at("/api/runs/{id}/steps/{step}/output", Organization, get(runs::output)),
        at("/api/runs/{id}/logs", Organization, get(runs::logs)),
        at("/api/runs/{id}/recording", Organization, get(recordings::get)),
        at("/api/runs/{id}/events", Organization, get(run_events::events)),
        at("/api/runs/{id}/artifacts", Organization, get(artifacts::list)),
        at(
            "/api/runs/{id}/artifacts/{artifactId}",
            Organization,
            get(artifacts::download),
        ),
        to("/api/runs/{id}/cancel", Organization, post(runs::cancel)),
        to("/api/runs/{id}/requeue", Organization, post(quarantine::requeue)),
        at("/api/quarantine", Organization, get(quarantine::list)),
        to("/api/runs/{id}/rerun", Organization, post(runs::again)),
        to("/api/runs/{id}/resume", Organization, post(runs::resume)),
        at("/api/runs/{id}/approvals", Organization, get(approvals::list)),
        to(
            "/api/runs/{id}/steps/{step}/decision",
            Organization,
            post(approvals::decide),
        ),
        to("/api/runs/{id}/steps/{step}/links", Organization, post(approvals::link)),
        at("/api/approvals/{token}", Link, get(approvals::look)),
        to("/api/approvals/{token}", Link, post(approvals::decide_by_link)),
        at("/api/audit", Organization, get(audit::list)),
        at("/api/data-providers", Organization, get(data_providers::list)),
        at("/api/data-providers/{name}", Organization, get(data_providers::provide)),
        at("/api/usage", Organization, get(usage::get)),
        at("/api/policy", Organization, get(policy::get)),
        into("/api/policy", Organization, put(policy::put)),
        at("/api/policy/effective", Organization, get(policy::effective)),
        at("/api/platform/policy", Caller, get(policy::get_platform)),
        into("/api/platform/policy", Caller, put(policy::put_platform)),
        at("/api/schedules", Organization, get(schedules::list)),
        to("/api/schedules", Organization, post(schedules::create)),
        to("/api/schedules/preview", Organization, post(schedules::preview)),
        at("/api/schedules/{id}", Organization, get(schedules::get)),
        on("PUT", "/api/schedules/{id}", put(schedules::put)),
        to("/api/schedules/{id}/trigger", Organization, post(schedules::trigger)),
        on("DELETE", "/api/schedules/{id}", delete(schedules::delete)),
        at("/api/secrets", Organization, get(secrets::list)),
        on("PUT", "/api/secrets/{name}", put(secrets::write)),
        on("DELETE", "/api/secrets/{name}", delete(secrets::delete)),
        at("/api/hooks/{id}", Hook, get(hooks::challenge)),
        to("/api/hooks/{id}", Hook, post(hooks::deliver)),
        at("/api/triggers/hooks", Organization, get(hooks::list)),
        to("/api/triggers/hooks", Organization, post(hooks::create)),
        at("/api/triggers/hooks/{id}", Organization, get(hooks::get)),
        on("PUT", "/api/triggers/hooks/{id}", put(hooks::replace)),
        to("/api/triggers/hooks/{id}/rotate", Organization, post(hooks::rotate)),
        at(
            "/api/triggers/hooks/{id}/deliveries",
            Organization,
            get(hooks::deliveries),
        ),
        on("DELETE", "/api/triggers/hooks/{id}", delete(hooks::delete)),
        at("/api/queue-triggers", Organization, get(queue_triggers::list)),
        to("/api/queue-triggers", Organization, post(queue_triggers::create)),
        at("/api/queue-triggers/{id}", Organization, get(queue_triggers::get)),
        on("PUT", "/api/queue-triggers/{id}", put(queue_triggers::replace)),
        to(
            "/api/queue-triggers/{id}/access",
            Organization,
            post(queue_triggers::access),
        ),
        to(
            "/api/queue-triggers/{id}/messages",
            Organization,
            post(queue_triggers::send),
        ),
        at(
            "/api/queue-triggers/{id}/set-aside",
            Organization,
            get(queue_triggers::list_set_aside),
        ),
        at(
            "/api/queue-triggers/{id}/set-aside/{message}",
            Organization,
            get(queue_triggers::get_set_aside),
        ),
        to(
            "/api/queue-triggers/{id}/set-aside/{message}/put-back",
            Organization,
            post(queue_triggers::put_back),
        ),
        on(
            "DELETE",
            "/api/queue-triggers/{id}/set-aside/{message}",
            delete(queue_triggers::drop_set_aside),
        ),
        on("DELETE", "/api/queue-triggers/{id}", delete(queue_triggers::delete)),
        at("/api/node-types", Organization, get(node_types::list)),
        at("/api/node-types/{name}", Organization, get(node_types::get)),
        at(
            "/api/node-types/{name}/versions/{version}",
            Organization,
            get(node_types::version),
        ),
        at("/api/node-types/{name}/used-by", Organization, get(node_types::used_by)),
        at("/api/platform/node-types", Caller, get(node_types::list_all)),
        at("/api/node-types/{name}/draft", Caller, get(node_types::draft)),
        into("/api/node-types/{name}/draft", Caller, put(node_types::put_draft)),
        Route {
            method: "DELETE",
            path: "/api/node-types/{name}/draft",
            access: Caller,
            handler: delete(node_types::delete_draft),
        },
        to("/api/node-types/{name}/publish", Caller, post(node_types::publish)),
        to(
            "/api/node-types/{name}/versions/{version}/deprecate",
            Caller,
            post(node_types::deprecate),
        ),
        to("/api/node-types/{name}/test", Caller, post(node_types::test)),
    ]
}

//! Every public error code, with what it means and what to do: the source of `docs/errors/`.

/// A public error code.
#[derive(Debug, Clone, Copy)]
pub struct Explained {
    /// The code.
    pub code: &'static str,
    /// The usual HTTP status.
    pub status: u16,
    /// What has happened.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl Explained {
    /// Its page.
    #[must_use]
    pub fn page(&self) -> String {
        let retriable = matches!(self.status, 429 | 503);
        format!(
            "# `{}`\n\nStatus {}{}.\n\n{}\n\n## What to do\n\n{}\n",
            self.code,
            self.status,
            if retriable {
                ", retriable: repeat the request after `Retry-After`"
            } else {
                ""
            },
            self.meaning,
            self.remedy
        )
    }
}

macro_rules! codes {
    ($($code:literal $status:literal $meaning:literal $remedy:literal)+) => {
        /// All of them, sorted.
        pub const ALL: &[Explained] =
            &[$(Explained { code: $code, status: $status, meaning: $meaning, remedy: $remedy }),+];
    };
}

codes! {
    "activation_changed" 412 "Somebody else has activated something, or rolled it back, since what was active was read; nothing was changed." "Look at `GET /api/bundles/active`, and repeat it if it is still right."
    "approval_counted" 409 "Somebody has agreed whose voice counts once: each principal's agreement, and those of all links and function keys that the principal has made, are one." "Somebody else has to agree: signed in, or with a link or a key that somebody else has made. A refusal counts from everybody."
    "approval_decided" 409 "This person has decided on the step already." "A decision can't be taken back; cancel the run instead."
    "approval_link_expired" 409 "The link for a decision is no longer good." "Ask whoever sent it for another one."
    "approval_link_invalid" 404 "The link for a decision was not made by this installation, or is not whole." "Use the whole link, as it was sent."
    "approval_over" 409 "The step doesn't wait for a decision: it was decided, has timed out, or has not begun." "`GET /api/runs/{id}/approvals` lists the steps that wait for people."
    "arguments_invalid" 400 "The arguments don't fit the declared parameters. `errors` lists every mistake, each with a JSON pointer." "Mend them all; `GET /api/workflows/{name}` has the parameters as JSON Schema."
    "artifact_not_found" 404 "The run has no such artifact." "`GET /api/runs/{id}/artifacts` lists those that there are."
    "assignment_not_found" 404 "The workflow is not assigned to this person." "`GET /api/workflows/{name}/assignments` lists to whom it is."
    "authentication_broken" 500 "What is stored about the caller can't be read." "The operator finds the reason in the log by the request id."
    "authentication_unavailable" 503 "The caller could not be looked up because storage does not answer." "Repeat the request; the operator checks storage with `weft doctor`."
    "body_not_an_object" 400 "The body is JSON, but not an object." "Send the arguments by name, as `{\"name\": \"Ada\"}`."
    "body_not_json" 400 "The body is not JSON. `detail` has the line and column." "Mend the body."
    "body_not_text" 400 "The body is no text in UTF-8." "Save the file as UTF-8."
    "body_too_large" 413 "The body is over the limit, which `detail` names. A body that is announced as too large (`Content-Length`) is refused before it is read; one in pieces when it is over the limit. What is still sent is read and thrown away for a while, so that the answer arrives." "Send less, or raise `WEFT_MAX_BODY_BYTES`. The archive of a bundle has at most 32 MiB, whatever that says: leave files out by `.weftignore`."
    "body_unreadable" 400 "The connection ended before the body was whole." "Send the request again."
    "bundle_damaged" 503 "The archive of a published bundle is missing from storage, or is not the one that was published. Nothing of it was run." "Publish the same files again (`weft publish`), which replaces the archive; or let another bundle run, or the deployed folder: `weft bundles activate BUNDLE`, `weft bundles activate folder`. See [bundles.md](../bundles.md#when-something-is-damaged). Find out who can write to the container `weft-bundles`."
    "bundle_in_use" 409 "The bundle is active, was active until just now, or kept runs are pinned to it." "Activate another one, and delete it when those runs are no longer kept."
    "bundle_invalid" 422 "The archive can't be a bundle, or the bundle's discovery found something wrong, so that it can't be activated. `errors` has everything; nothing was changed." "Mend it all; `weft check` shows it for a workspace, and [bundles.md](../bundles.md) says what a bundle may be. `no_workflow` alone is let through by `--allow-empty` (`?allowEmpty=true`)."
    "bundle_not_found" 404 "There is no such bundle." "`weft bundles list` shows those that there are."
    "bundle_unavailable" 503 "Code that a run is pinned to, or that is active, can't be had on this instance: it was not published, or there is no room for it." "`/api/status` says what is in the way, and the log of the instance where. A run of code that was never published goes on where that code is deployed, or when the same files are published: `weft publish` in the commit that it ran. A new run takes the current code, and so does `POST /api/runs/{id}/rerun?revision=current`. See [bundles.md](../bundles.md#copies-and-deletion)."
    "bundle_untrusted" 503 "What says which code is active, or what a bundle is, is not signed with the key of this installation, can't be read, is gone, or is behind what the history says. Nothing of it was run." "`weft bundles history` shows what was active; `weft bundles activate BUNDLE` (or `folder`) says anew what is to run, and `weft publish` signs a bundle anew. If the signing key was changed, both are needed. See [bundles.md](../bundles.md#when-something-is-damaged). If not, somebody has written to the table `WeftBundles`."
    "bundles_full" 409 "There are as many published bundles as there may be." "Delete some: `weft bundles prune`."
    "concurrency_key_taken" 409 "The run was to be started only if its concurrency key is free (`onConflict=skip`), and it is not; nothing was started." "Repeat it when the run that `detail` names has ended, or choose another `onConflict`."
    "config_not_found" 404 "There is no configuration entry of this name." "`weft entry list` shows those that there are."
    "conflict" 409 "Somebody else changed the same thing at the same moment." "Repeat the request."
    "credential_ambiguous" 401 "A credential was sent more than once, with different values." "Send one."
    "credential_too_large" 401 "A credential is longer than any that Weft has made." "Send the credential as it was given."
    "credentials_missing" 403 "The request has neither a function key nor a client principal." "Send a function key in `x-functions-key`, or sign in."
    "data_provider_failed" 502 "The code of the data provider failed." "Mend the code; `detail` has its error."
    "data_provider_not_found" 404 "The workspace declares no data provider of this name." "`GET /api/data-providers` lists those that there are."
    "draft_changed" 412 "The draft of the workflow is no longer the one that was seen: somebody has saved another, published or discarded it. `current` says who and when. Nothing was saved." "Read it, bring both together, and send its `ETag` as `If-Match`."
    "draft_not_found" 404 "The workflow has no draft in this organization." "`PUT /api/workflows/{name}/draft` with `If-None-Match: *` begins one."
    "draft_would_be_empty" 409 "A graph without nodes would take the place of one that has some." "An editor saves what it has loaded, never before; `?clear=true` empties a draft."
    "email_taken" 409 "Another user has this e-mail address." "Use another address."
    "environment_building" 503 "The packages that the workspace asks for are being installed. `detail` has the installer's last line." "Repeat the request; `GET /api/environments/current` and `weft env log` show how far it is."
    "environment_failed" 503 "The packages that the workspace asks for could not be installed. `detail` has the installer's last lines." "Mend `requirements.txt`; `weft env log` has the whole output. It is tried again every minute."
    "environment_unavailable" 503 "The run is pinned to packages that this instance doesn't have and, having another Python, can't install." "Start a new run, which takes the current environment."
    "hook_body_unreadable" 400 "The delivery is signed well, and its body is not what the hook expects: JSON that is none, a whole number beyond 64 bits, which would be rounded, or bytes that are no text. Nothing was started." "Send what the hook expects, or make a hook that takes the body as one argument."
    "hook_changed" 412 "The hook is no longer the one that was to be changed: `If-Match` names another, or somebody wrote one at the same moment." "Read it again, apply the change to it, and send its `ETag` as `If-Match`."
    "hook_invalid" 400 "The hook can't be made or changed like this. `errors` lists every mistake, each with a JSON pointer." "Mend them all; [hooks.md](../hooks.md) describes every member."
    "hook_limit_reached" 409 "The organization has as many hooks as it may have." "Delete one that nobody uses."
    "hook_not_found" 404 "There is no such hook, or the organization has none of this id." "Check the address; `GET /api/triggers/hooks` lists the organization's."
    "hook_signature_invalid" 401 "The delivery is not signed by a secret of the hook, it is too old, or the hook is switched off. The sender is not told which; the hook's deliveries and the audit records say it." "Check the secret, the scheme and the sender's clock; `GET /api/triggers/hooks/{id}/deliveries` has the reason."
    "hook_throttled" 429 "Deliveries come faster than the hook, or this instance, takes them." "Deliver again later; raise `perMinute` of the hook where that is meant."
    "idempotency_key_reused" 409 "The idempotency key was used within 24 hours for a request with other arguments, or with another beginning, priority, concurrency key, profile or plan." "Use a new key for another request."
    "identity_taken" 409 "The identity belongs to another user." "Remove it from the other user first."
    "internal" 500 "A defect of Weft." "Report the request id; the log has the cause."
    "key_expired" 401 "The function key has expired." "Use its successor, or make a new one with `weft keys create`."
    "key_invalid" 401 "There is no such function key." "Check the key; `weft keys list` shows which there are."
    "key_malformed" 400 "The key to be made has no right, or too many organizations." "Give at least one scope."
    "key_not_current" 409 "The key is revoked, expired or already replaced, so it can't be rotated." "Make a new key."
    "key_not_for_organization" 403 "The function key is for other organizations. This is said whether or not the organization exists." "Use a key of this organization."
    "key_not_found" 404 "There is no key with this id." "`weft keys list` shows the ids."
    "key_not_generated" 400 "Only a development key may be one that somebody thought up." "Let Weft make the key."
    "key_revoked" 401 "The function key was revoked." "Use another key."
    "media_type_unsupported" 415 "The body is not declared as JSON." "Send `Content-Type: application/json`."
    "member_not_found" 404 "The person is no member of the organization." "Have them made a member first."
    "method_not_allowed" 405 "The route does not have this method." "`Allow` lists those that it has."
    "node_type_changed" 412 "The draft of the node type is no longer the one that was to be changed or published, or there was to be none." "Read it again, apply the change to it, and send its `ETag` as `If-Match`."
    "node_type_invalid" 400 "The node type can't be like this, or the values of a trial don't fit to it. `errors` lists every mistake: of members with a JSON pointer, of code with line and column." "Mend them all; [node-library.md](../node-library.md) describes every member."
    "node_type_not_found" 404 "The library has no node type of this name, or it has no draft." "`GET /api/node-types` lists those that there are."
    "node_type_tampered" 409 "What is stored of a version of a node type is not what was published. It was not run, and that is on record." "A platform administrator publishes the code as another version, and finds out who can write to the container `weft-library`."
    "node_type_trust" 403 "A key wanted to write or publish a node type that is trusted more than restricted code." "Leave `trust` out, or have a platform administrator do it."
    "node_type_without_code" 409 "The node type calls a function of the workspace, and has no code of its own to be tried." "Try it in a workflow that uses it."
    "node_types_full" 409 "The library has as many node types, or the node type as many versions, as it may." "Delete drafts that nobody needs, or begin a node type of another name."
    "node_types_unresolved" 409 "The workflow uses node types, versions, settings or inputs that the library doesn't have. Nothing was started. `errors` has each place." "Mend the graph, or publish what it uses."
    "node_version_not_found" 404 "The node type has no published version like this." "`GET /api/node-types/{name}` lists those that there are."
    "node_version_taken" 409 "A version of this number is published, and a published version never changes." "Give the draft a higher `version`."
    "not_a_graph" 400 "The body is no graph, not even an unfinished one: it has no list of `nodes`." "Send a graph, as [graphs.md](../graphs.md) describes it."
    "not_permitted" 403 "The caller's role or the key's scopes don't allow this verb." "`hint` says what would be enough; `docs/authz-matrix.txt` has the whole table."
    "nothing_to_roll_back" 409 "Nothing was active before what is active now." "Activate what is to run by its digest."
    "options_invalid" 502 "What the code of the data provider has returned are no options." "Have it return a list of `{\"value\", \"label\"}` or of single values, at most 10,000; `detail` says what is wrong."
    "organization_header_duplicated" 400 "`X-Organization-Id` was sent more than once." "Send it once."
    "organization_header_malformed" 400 "`X-Organization-Id` is not an organization id." "Ids have 3 to 40 of a–z and 0–9."
    "organization_header_missing" 400 "The route needs `X-Organization-Id`." "Send the organization's id."
    "organization_id_used" 409 "The id is, or was, an organization's; ids are never used twice." "Leave the id out and one is generated."
    "organization_inactive" 403 "The organization is switched off." "An administrator can switch it on again."
    "organization_not_found" 404 "The organization does not exist, or the caller is no member and may not know." "Check the id; ask for a membership."
    "parameter_invalid" 400 "A header, path or query parameter can't be read, or something would be passed over or lost: a query parameter or a body that the request doesn't take, a whole number beyond 64 bits, one of two members with the same name. `errors` names it, and `hint` what the request takes." "Mend the parameter, or leave out what isn't taken; send such a number as a text, and each member once."
    "plan_changed" 409 "The run was to be the one that was planned (`plan=HASH`), and it would be another. Nothing was started." "Look at the plan again: the code, the arguments, a policy or the profile has changed."
    "plan_only" 403 "The security profile that holds lets nothing run. Nothing was started, and the refusal is on record." "Look at what would happen with `POST /api/workflows/{name}/plan`; `hint` says who has chosen the profile."
    "policy_changed" 412 "The policy is no longer the one that was to be replaced: `If-Match` names another, or somebody wrote one at the same moment." "Read it again, apply the change to it, and send its `ETag` as `If-Match`."
    "policy_invalid" 400 "The policy can't be read. `errors` lists every mistake, each with a JSON pointer." "Mend them all; [policies.md](../policies.md) describes every member."
    "policy_refused" 403 "The workflow or data provider declares what a policy of the platform or of the organization refuses. Nothing was started. `errors` has each refusal, with the line that declares it and who can change the policy." "Take it out of the declaration, or have the policy changed; `GET /api/policy/effective?workflow=NAME` shows what is allowed and why."
    "policy_widened" 403 "The caller may narrow the organization's policy, but the new one gives more trust, modules, open network or bytes of artifacts than the one before." "A platform administrator, or `weft policy set` on the installation, gives more."
    "precondition_required" 428 "The request changes what several people work on, and doesn't say which version it has seen." "Send the `ETag` of what was read as `If-Match`, or `If-None-Match: *` where there is nothing yet."
    "principal_malformed" 401 "`X-MS-CLIENT-PRINCIPAL` is not a client principal." "It must be one of the two documented shapes, base64 of JSON."
    "principal_not_trusted" 401 "`X-MS-CLIENT-PRINCIPAL` was sent where nothing vouches for it." "Set `WEFT_PRINCIPAL_SOURCE` when the app is behind Static Web Apps or App Service authentication."
    "principal_wrong_shape" 401 "The client principal has the shape of another front door than the one that the operator named." "Check `WEFT_PRINCIPAL_SOURCE`."
    "python_unavailable" 503 "Python is missing or too old." "Install Python 3.11 or newer, or name one in `WEFT_PYTHON`."
    "queue_access_unavailable" 409 "The storage of this installation can't give out addresses of queues: it is the embedded store, or Weft itself has only a shared access signature." "Send through the API: `POST /api/queue-triggers/{id}/messages`."
    "queue_message_not_found" 404 "No such message of this queue trigger is set aside: it never was, was put back, or was dropped." "`GET /api/queue-triggers/{id}/set-aside` lists those that are."
    "queue_message_put_back" 409 "The message can't be dropped: somebody is putting it back, or it was put back and has started its run." "Look at the list again; what is still there in two minutes can be dropped."
    "queue_message_too_large" 413 "The message has more than 48 KiB." "Keep what is large elsewhere, and send where it is."
    "queue_message_unreadable" 400 "The message is not JSON, neither as it is nor in base64." "Mend the sender, and drop the message; it can't become a run."
    "queue_trigger_changed" 412 "The queue trigger is no longer the one that was to be changed." "Read it again, apply the change to it, and send its `ETag` as `If-Match`."
    "queue_trigger_invalid" 400 "The queue trigger can't be like this. `errors` lists every mistake." "Mend them all; [queue-triggers.md](../queue-triggers.md) describes every member."
    "queue_trigger_not_found" 404 "There is no such queue trigger in this organization." "`GET /api/queue-triggers` lists those that there are."
    "queue_triggers_full" 409 "The organization has as many queue triggers as it may." "Delete one that is not needed."
    "range_not_satisfiable" 416 "The range that was asked for lies behind the end." "Ask for a range within the size that `Content-Range` says, or for all."
    "requirements_invalid" 503 "`requirements.txt` has lines that are not a package with a version. `errors` lists them." "Mend them; `weft check` shows them again."
    "resumed_too_often" 409 "As many runs stand behind this one, each of which resumes the one before it, as may." "`POST /api/runs/{id}/rerun` runs it from its beginning."
    "revision_not_found" 404 "The workflow has no such revision, or it is no longer kept." "`GET /api/workflows/{name}/revisions` lists those that there are."
    "role_not_for_members" 400 "`administrator` is no role of a member." "Set the user's administrator flag instead."
    "route_not_found" 404 "There is no such route." "`/api/docs` shows the routes."
    "run_ended" 409 "The run has ended already." "Nothing is left to cancel."
    "run_not_ended" 409 "The run has not ended." "Wait for its end, or cancel it first."
    "run_not_found" 404 "There is no such run in this organization, or the caller may not see it." "Check the id and `X-Organization-Id`."
    "run_not_quarantined" 409 "No message about the run is set aside, or it was put back already." "`GET /api/quarantine` lists those that are."
    "run_succeeded" 409 "The run has succeeded, so there is nothing to resume." "`POST /api/runs/{id}/rerun` runs it once more."
    "run_unreadable" 409 "There is a run, and what is stored of it can't be read by this version: it was set aside, and nobody goes on with it." "Whoever may cancel it ends it: `POST /api/runs/{id}/cancel`. Where what is stored was mended, or a newer version that has written it is back, `POST /api/runs/{id}/requeue` lets it go on. [operations.md](../operations.md#runs-that-cant-be-read) says more."
    "schedule_changed" 412 "The schedule is no longer the one that was to be replaced: `If-Match` names another." "Read it again, apply the change to it, and send its `ETag` as `If-Match`."
    "schedule_invalid" 400 "The schedule can't be kept like this. `errors` lists every mistake, each with a JSON pointer." "Mend them all; [schedules.md](../schedules.md) describes every member, and `POST /api/schedules/preview` tries one without keeping it."
    "schedule_not_found" 404 "There is no such schedule in this organization." "`GET /api/schedules` lists those that there are."
    "schedules_full" 409 "The organization has as many schedules as it may." "Delete one that is not needed; one schedule may start a workflow that starts others."
    "secret_invalid" 400 "The secret can't be kept like this. `errors` lists every mistake." "Mend them all: a value has 4 to 25000 bytes, and hosts are names as `api.example.com`."
    "secret_not_found" 404 "There is no secret of this name." "`GET /api/secrets` lists those that there are."
    "secrets_off" 503 "This installation keeps no secrets: neither a key nor a key vault is set." "The operator sets `WEFT_SECRETS_KEY`, `WEFT_SECRETS_KEY_FILE` or `WEFT_KEY_VAULT_URL`."
    "slug_taken" 409 "Another organization has this slug." "Choose another."
    "starting" 503 "The handler has just started and is not ready." "Repeat the request."
    "step_not_found" 404 "The run has no such step." "`GET /api/runs/{id}/steps` lists those that there are."
    "step_unreadable" 409 "What the step, or one of its items, has left can't be read: its row or a value of it is damaged or gone. Nothing else of the run is." "`GET /api/runs/{id}/steps` says which step, with what of it can be read. A run that needs it to go on is set aside: [operations.md](../operations.md#runs-that-cant-be-read)."
    "stopping" 503 "The handler is stopping." "Repeat the request."
    "storage_forbidden" 503 "Storage refuses the handler's credential." "The operator checks the account's key, SAS or role assignments with `weft doctor`."
    "storage_not_prepared" 500 "A table, queue or container is missing." "Run `weft seed` in development; create the organization otherwise."
    "storage_throttled" 503 "Storage asks for fewer requests." "Repeat the request later."
    "storage_unavailable" 503 "Storage can't be reached, or its disk is full. Nothing half-written is visible." "Repeat the request; the operator checks storage with `weft doctor`."
    "too_large" 413 "A value is over a limit of storage; `detail` names it." "Make it smaller."
    "trust_not_given" 403 "Only a platform administrator trusts what people of an organization have written." "Ask one to look at the workflow and to send the request."
    "user_header_malformed" 400 "`X-User-Id` is not 1 to 128 printable characters." "Mend the header, or leave it out."
    "user_id_used" 409 "A user with this id exists." "Leave the id out and one is generated."
    "user_inactive" 403 "The user is switched off." "Ask an administrator."
    "user_not_found" 404 "There is no such user." "Check the id."
    "user_unknown" 403 "The client principal is genuine, but nobody has made an account for it." "Ask an administrator for an account."
    "value_too_large" 413 "What the items of a map have left is too much to be one list." "Let each item leave less, or keep what is large as an artifact; `GET /api/runs/{id}/steps/{step}/output?item=N` gives one."
    "worker_unavailable" 503 "No worker process could be started." "Repeat the request; the operator finds the reason in the log."
    "workers_busy" 503 "Every worker slot is taken, and the queue for one is full." "Repeat the request later, or raise `WEFT_WORKER_SLOTS`."
    "workflow_archived" 409 "The workflow is archived: it can't be called, published or rolled back." "`POST /api/workflows/{name}/unarchive` makes it callable again."
    "workflow_broken" 409 "The organization's workflow was published when it was good, and the workspace has changed since: a function that it calls is missing, or takes other inputs. `errors` names each." "Publish a revision that fits, or have the workspace declare what is missing."
    "workflow_changed" 412 "The workflow is no longer the one that was to be changed. `current` says how it is." "Read it again, and send its `ETag` as `If-Match`."
    "workflow_invalid" 400 "The graph can't be published, run or imported. `errors` lists every mistake, each with a pointer in which a node is named by its id." "Mend them all; [graphs.md](../graphs.md) describes every member, and `POST /api/workflows/{name}/validate` looks without saving."
    "workflow_limit_reached" 409 "The organization has as many workflows as it may have, drafts and archived ones among them." "Discard drafts that were never published and nobody needs."
    "workflow_name_taken" 409 "The workspace declares a workflow of this name; `detail` has the file." "Choose another name."
    "workflow_not_exported" 409 "The workflow is a function, or was never published: there is no graph to export." "Copy the function's file; publish a draft first."
    "workflow_not_found" 404 "The workspace declares no workflow of this name." "`hint` lists those that there are; `weft check` shows what keeps a file out."
    "workflow_state" 409 "The workflow is archived already, or is not." "`GET /api/workflows/{name}?origin=organization` shows how it is."
    "workspace_unavailable" 503 "The workspace folder can't be read." "Check `WEFT_WORKSPACE`."
}

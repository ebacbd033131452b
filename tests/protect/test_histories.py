"""How a change got there counts for nothing: merges, rewritten histories, names of refs, and what git can be told to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from repository import SCRIPT, SHELL, ZEROS, Repository, allowed, refused, unjudged


def test_an_edit_hidden_in_a_merge_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("checkout", "-q", "-b", "topic")
    fork.commit_with({"workspace/topic.py": ""})
    fork.git("checkout", "-q", "main")
    fork.commit_with({"workspace/main.py": ""})
    fork.git("merge", "-q", "--no-commit", "--no-ff", "topic")
    fork.write("engine/loader.py", "import os\n")
    refused(fork.judge(base, fork.commit("Merge branch 'topic'")), "engine/loader.py: changed")


def test_an_edit_in_the_second_parent_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("checkout", "-q", "-b", "topic")
    fork.commit_with({"engine/loader.py": "import os\n"})
    fork.git("checkout", "-q", "main")
    fork.commit_with({"workspace/main.py": ""})
    fork.git("merge", "-q", "--no-edit", "topic")
    refused(fork.judge(base, fork.head), "engine/loader.py: changed")


def test_an_edit_hidden_in_the_merge_of_a_release_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("merge", "-q", "--no-commit", "--no-ff", "v1.1.0")
    fork.write("engine/loader.py", fork.read("engine/loader.py") + "import os\n")
    verdict = fork.judge(base, fork.commit("Merge tag 'v1.1.0'"))
    refused(
        verdict, "engine/loader.py: other content than in release 1.1.0", "carries release 1.1.0, but not as"
    )
    assert "engine/new.py" not in verdict.err


def test_an_edit_that_is_taken_back_is_allowed(fork: Repository) -> None:
    base = fork.head
    edit = fork.commit_with({"engine/loader.py": "import os\n"})
    refused(fork.judge(base, edit))
    fork.git("revert", "--no-edit", edit)
    allowed(fork.judge(base, fork.head))


def test_a_merge_that_keeps_our_side_is_allowed(fork: Repository) -> None:
    base = fork.head
    fork.git("checkout", "-q", "-b", "topic")
    fork.commit_with({"engine/loader.py": "import os\n"})
    fork.git("checkout", "-q", "main")
    fork.git("merge", "-q", "--no-edit", "-s", "ours", "topic")
    allowed(fork.judge(base, fork.head))


def test_a_revert_of_a_release_is_refused(fork: Repository) -> None:
    fork.git("merge", "-q", "--no-edit", "--no-ff", "v1.1.0")
    base = fork.head
    fork.git("revert", "--no-edit", "-m", "1", "HEAD")
    refused(fork.judge(base, fork.head), "carries release 1.0.0, and the base has 1.1.0 already")


@pytest.mark.parametrize("way", ["squash", "rebase", "amend", "orphan"])
def test_a_rewritten_history_is_judged_by_its_content(fork: Repository, way: str) -> None:
    start = fork.head
    base = fork.commit_with({"workspace/before.py": ""})
    for content, judged in (("", allowed), ("import os\n", refused)):
        fork.git("checkout", "-q", "--detach", start)
        fork.commit_with({"workspace/topic.py": content})
        if content:
            fork.commit_with({"engine/loader.py": content})
        topic = fork.head
        if way == "squash":
            fork.git("checkout", "-q", "--detach", base)
            fork.git("merge", "-q", "--squash", topic)
            fork.commit("squashed")
        elif way == "rebase":
            fork.git("rebase", "-q", base)
        elif way == "amend":
            fork.git("commit", "-q", "--amend", "-m", "as if nothing had happened")
        else:
            fork.git("checkout", "-q", "--orphan", f"orphan{len(content)}")
            fork.commit("from nothing")
        judged(fork.judge(base, fork.head))


def test_a_forced_push_is_judged_against_what_was_there(fork: Repository) -> None:
    """The old tip is reachable from nowhere, as after a forced push."""
    fork.commit_with({"workspace/lost.py": ""})
    base = fork.head
    fork.git("reset", "-q", "--hard", "HEAD~1")
    head = fork.commit_with({"engine/loader.py": "import os\n"})
    fork.git("reflog", "expire", "--expire=all", "--all")
    refused(fork.judge(base, head), "engine/loader.py: changed")
    fork.git("reset", "-q", "--hard", "HEAD~1")
    allowed(fork.judge(base, fork.commit_with({"workspace/other.py": ""})))


def test_a_base_that_is_gone_is_no_allowance(fork: Repository) -> None:
    base = fork.commit_with({"workspace/lost.py": ""})
    fork.git("reset", "-q", "--hard", "HEAD~1")
    fork.git("reflog", "expire", "--expire=all", "--all")
    fork.git("gc", "-q", "--prune=all")
    unjudged(fork.judge(base, fork.head), "can't be read")


def test_no_base_is_no_allowance(fork: Repository) -> None:
    unjudged(fork.judge(ZEROS, fork.head), "there is no commit to compare with")
    unjudged(fork.judge(fork.head, ZEROS), "there is no commit to compare with")
    unjudged(fork.judge("0" * 64, fork.head), "there is no commit to compare with")


def test_refs_with_confusing_names_do_not_confuse(fork: Repository) -> None:
    base = fork.head
    head = fork.commit_with({"engine/loader.py": "import os\n"})
    for name in (
        "v1.0.0",
        "v1.1.0",
        "release",
        "HEAD",
        "main",
        base,
        head,
        base[:8],
        head[:8],
        "upstream/main",
    ):
        for kind, other in (("heads", base), ("tags", base), ("remotes", base)):
            fork.git("update-ref", f"refs/{kind}/{name}", other if f"{kind}/{name}" != "heads/main" else head)
    fork.git("update-ref", f"refs/heads/{base}", head)
    refused(fork.judge(base, head), "engine/loader.py: changed")
    refused(fork.judge(base, "HEAD"), "engine/loader.py: changed")
    unjudged(fork.judge(base, "v1.1.0"), "names more than one thing")
    unjudged(fork.judge(base[:8], head), "names more than one thing")
    unjudged(fork.judge(base, "main"), "names more than one thing")


def test_branches_and_annotated_tags_can_be_named(fork: Repository) -> None:
    fork.git("branch", "before")
    fork.git("checkout", "-q", "-b", "after")
    fork.commit_with({"workspace/x.py": ""})
    fork.git("tag", "-a", "-m", "mine", "mine")
    allowed(fork.judge("before", "after"))
    allowed(fork.judge("before", "mine"))
    allowed(fork.judge("HEAD~1", "HEAD"))
    allowed(fork.judge(fork.git("rev-parse", "mine"), "HEAD"))


@pytest.mark.parametrize(
    "name", ["", "-x", "nothing", "HEAD:engine", "HEAD^{tree}", "f" * 40, "HEAD...main", "a b"]
)
def test_what_is_no_commit_is_no_allowance(fork: Repository, name: str) -> None:
    for base, head in ((name, "HEAD"), ("HEAD", name)):
        verdict = fork.judge(base, head)
        unjudged(verdict)


def test_trees_and_blobs_are_no_commits(fork: Repository) -> None:
    for what in ("HEAD^{tree}", "HEAD:engine", "HEAD:host.json"):
        unjudged(fork.judge(fork.head, fork.git("rev-parse", what)), "can't be read")


def test_replacements_and_grafts_do_not_hide_a_change(fork: Repository) -> None:
    base = fork.head
    honest = fork.commit_with({"workspace/x.py": ""})
    fork.git("reset", "-q", "--hard", base)
    head = fork.commit_with({"engine/loader.py": "import os\n"})
    fork.git("replace", head, honest)
    fork.git("replace", f"{head}^{{tree}}", f"{honest}^{{tree}}")
    fork.git(
        "replace",
        fork.git("rev-parse", f"{head}:engine/loader.py"),
        fork.git("rev-parse", f"{base}:engine/loader.py"),
    )
    fork.write(".git/info/grafts", f"{head}\n")
    refused(fork.judge(base, head), "engine/loader.py: changed")
    refused(fork.judge(base, "HEAD"), "engine/loader.py: changed")


def test_replaced_blobs_do_not_pass_as_a_release(fork: Repository) -> None:
    base = fork.head
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    good = fork.git("rev-parse", "HEAD:engine/new.py")
    head = fork.commit_with({"engine/new.py": "import os\n"})
    fork.git("replace", fork.git("rev-parse", "HEAD:engine/new.py"), good)
    refused(fork.judge(base, head), "engine/new.py: other content than in release 1.1.0")


@pytest.mark.parametrize("where", [".gitattributes", "engine/.gitattributes", "workspace/.gitattributes"])
def test_attributes_do_not_change_what_is_compared(fork: Repository, where: str) -> None:
    """In HEAD, in the work tree and in the index at once, with a filter that is configured to give back the old file."""
    base = fork.head
    fork.git("show", "HEAD:engine/loader.py")
    (fork.path.parent / "good.py").write_text(fork.read("engine/loader.py"))
    attributes = "* filter=good ident export-subst export-ignore eol=crlf -diff merge=ours\n*.py text\n"
    fork.git("config", "filter.good.smudge", f"cat {fork.path.parent / 'good.py'}")
    fork.git("config", "filter.good.clean", "cat")
    fork.git("config", "diff.external", "true")
    fork.git("config", "core.autocrlf", "true")
    fork.write(".git/info/attributes", "* export-ignore -diff filter=good\n")
    head = fork.commit_with(
        {where: attributes, "engine/loader.py": "import os\n", "engine/$Id$.py": "$Id$ $Format:%H$"}
    )
    refused(fork.judge(base, head), "engine/loader.py: changed")
    fork.git("merge", "-q", "--no-edit", "v1.1.0", "-X", "theirs")
    refused(fork.judge(base, fork.head))


def test_settings_of_the_repository_do_not_change_what_is_compared(fork: Repository) -> None:
    base = fork.head
    head = fork.commit_with({"engine/loader.py": "import os\n", ".gitconfig": "[core]\n\tworktree = /\n"})
    (fork.path / ".git/hooks").mkdir(exist_ok=True)
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor"):
        fork.write(f".git/hooks/{hook}", f"#!/bin/sh\ntouch '{fork.path}/pwned'\n")
        (fork.path / ".git/hooks" / hook).chmod(0o755)
    settings = {
        "core.quotePath": "false",
        "core.precomposeUnicode": "true",
        "core.ignoreCase": "true",
        "core.fileMode": "false",
        "core.symlinks": "false",
        "core.sparseCheckout": "true",
        "core.warnAmbiguousRefs": "false",
        "core.fsmonitor": ".git/hooks/fsmonitor",
        "core.commitGraph": "true",
        "diff.ignoreSubmodules": "all",
        "diff.renames": "copies",
        "diff.orderFile": "/dev/null",
        "core.attributesFile": "/dev/null",
        "color.ui": "always",
        "log.showSignature": "true",
        "alias.ls-tree": "!true",
        "include.path": "../.gitconfig",
    }
    for name, value in settings.items():
        fork.git("config", name, value)
    refused(fork.judge(base, head), "engine/loader.py: changed")
    assert not (fork.path / "pwned").exists()


def test_variables_of_git_do_not_change_what_is_compared(fork: Repository) -> None:
    base = fork.head
    head = fork.commit_with({"engine/é.py": "import os\n"})
    verdict = fork.judge(
        base,
        head,
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0="core.quotePath",
        GIT_CONFIG_VALUE_0="false",
        GIT_LITERAL_PATHSPECS="1",
        GIT_INDEX_FILE="/nonexistent",
        GIT_REPLACE_REF_BASE="refs/other/",
        GIT_NAMESPACE="other",
        LC_ALL="C.UTF-8",
        CDPATH="/",
        names="^nothing$",
        judgement="allowed",
        GREP_OPTIONS="-v",
    )
    refused(verdict, r'"engine/\303\251.py": added')


def test_a_shallow_clone_is_enough(fork: Repository, tmp_path: Path) -> None:
    base = fork.head
    honest = fork.commit_with({"workspace/x.py": ""})
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    synced = fork.head
    edited = fork.commit_with({"engine/loader.py": "import os\n"})
    fork.git("config", "uploadpack.allowAnySHA1InWant", "true")
    one = Repository.new(tmp_path / "shallow")
    one.git("fetch", "-q", "--depth=1", f"file://{fork.path}", base, honest, synced, edited)
    assert one.git("rev-list", "--count", base) == "1"
    allowed(one.judge(base, honest))
    allowed(one.judge(base, synced))
    refused(one.judge(base, edited))


def test_a_clone_without_blobs_is_enough_for_the_workspace_only(fork: Repository, tmp_path: Path) -> None:
    base = fork.head
    honest = fork.commit_with({"workspace/x.py": ""})
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    fork.git("config", "uploadpack.allowFilter", "true")
    fork.git(
        "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{fork.path}", tmp_path / "partial"
    )
    one = Repository(tmp_path / "partial")
    unjudged(one.judge(base, honest), "protected-paths")
    for name in (
        "protected-paths",
        "upstream",
        "engine-signers",
        "engine-release.json",
        "engine-release.json.sig",
    ):
        one.git("cat-file", "-p", f"{base}:.github/{name}")
    allowed(one.judge(base, honest))
    verdict = one.judge(base, fork.head)
    assert verdict.status in (1, 2), verdict.text


@pytest.mark.parametrize("kind", ["bare", "worktree", "subfolder", "odd name"])
def test_any_kind_of_repository_will_do(fork: Repository, tmp_path: Path, kind: str) -> None:
    base = fork.head
    honest = fork.commit_with({"workspace/x.py": ""})
    edited = fork.commit_with({"engine/loader.py": "import os\n"})
    fork.git("merge", "-q", "--no-edit", "-X", "theirs", "v1.1.0")
    path = tmp_path / ('a "b"\' $c;#' if kind == "odd name" else kind)
    if kind == "bare":
        fork.git("clone", "-q", "--bare", fork.path, path)
    elif kind == "worktree":
        fork.git("worktree", "add", "-q", path, honest)
    elif kind == "odd name":
        fork.git("clone", "-q", fork.path, path)
    else:
        path = fork.path / "workspace"
    one = Repository(path)
    allowed(one.judge(base, honest))
    refused(one.judge(base, edited))


def test_a_repository_of_sha_256_will_do(tmp_path: Path, fork: Repository) -> None:
    one = Repository.new(tmp_path / "sha256", "--object-format=sha256")
    fork.git("checkout", "-q", "v1.0.0")
    fork.run(["cp", "-R", *[item for item in fork.path.iterdir() if item.name != ".git"], one.path])
    base = one.commit()
    assert len(base) == 64
    allowed(one.judge(base, one.commit_with({"workspace/x.py": ""})))
    fork.git("checkout", "-q", "v1.1.0")
    fork.run(["cp", "-R", *[item for item in fork.path.iterdir() if item.name != ".git"], one.path])
    allowed(one.judge(base, one.commit()))
    refused(one.judge(base, one.commit_with({"engine/loader.py": ""})))


def test_a_hook_can_judge_what_is_being_pushed(fork: Repository, tmp_path: Path) -> None:
    """Before it is accepted, when its objects are in a place of their own."""
    server = tmp_path / "server.git"
    fork.git("clone", "-q", "--bare", "--template=", fork.path, server)
    (server / "hooks").mkdir()
    hook = server / "hooks" / "pre-receive"
    hook.write_text(f'#!/bin/sh\nread -r old new name\nexec {" ".join(SHELL)} \'{SCRIPT}\' "$old" "$new"\n')
    hook.chmod(0o755)
    fork.commit_with({"workspace/x.py": ""})
    fork.git("push", "-q", str(server), "main")
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    fork.git("push", "-q", str(server), "main")
    fork.commit_with({"engine/loader.py": "import os\n"})
    done = fork.run(["git", "push", "-q", str(server), "main"])
    assert done.returncode == 1
    assert b"engine/loader.py: changed" in done.stderr

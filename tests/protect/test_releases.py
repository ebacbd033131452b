"""How a newer engine comes in: as upstream has released it, whole, signed, and never an older one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Upstream
from repository import (
    PATHS,
    RELEASE,
    SIGNATURE,
    SIGNERS,
    Key,
    Repository,
    allowed,
    new_key,
    refused,
    unjudged,
)

ForkAt = Callable[[str], Repository]


def take(fork: Repository, tag: str) -> None:
    """The engine of a release as it is in a tarball, in place of ours; the workspace stays."""
    archive = fork.path.parent / f"{tag}.tar"
    fork.git("archive", "-o", archive, tag)
    for item in fork.git("ls-files").splitlines():
        if not item.startswith("workspace/"):
            (fork.path / item).unlink()
    with tarfile.open(archive) as tar:
        tar.extractall(
            fork.path,
            [member for member in tar.getmembers() if not member.name.startswith("workspace")],
            filter="tar",
        )


@pytest.mark.parametrize("tag", ["v1.1.0", "v1.2.0"])
@pytest.mark.parametrize("way", ["merge", "squash", "rebase", "tarball", "cherry-pick", "checkout"])
def test_a_release_is_taken_in_any_way(fork: Repository, tag: str, way: str) -> None:
    base = fork.head
    if way == "merge":
        fork.git("merge", "-q", "--no-edit", tag)
    elif way == "squash":
        fork.git("merge", "-q", "--squash", tag)
        fork.commit("sync")
    elif way == "rebase":
        fork.git("rebase", "-q", tag)
    elif way == "tarball":
        take(fork, tag)
        fork.commit("sync")
    elif way == "cherry-pick":
        fork.git("cherry-pick", f"v1.0.0..{tag}")
    else:
        fork.git("rm", "-r", "-q", ".")
        fork.git("checkout", tag, "--", ".")
        fork.git("checkout", base, "--", "workspace")
        fork.commit("sync")
    verdict = fork.judge(base, fork.head)
    allowed(verdict)
    assert f"({tag[1:]}, signed by releases@example.com)" in verdict.out
    assert fork.read("workspace/own.py") == "OWN = 1\n"


def test_a_release_is_taken_together_with_own_work(fork: Repository) -> None:
    base = fork.head
    fork.git("merge", "-q", "--no-edit", "v1.2.0")
    allowed(fork.judge(base, fork.commit_with({"workspace/x.py": "", "README.md": "ours\n"})))


def test_a_fork_with_nothing_of_its_own_follows(fork: Repository) -> None:
    allowed(fork.judge("v1.0.0", "v1.1.0"))
    allowed(fork.judge("v1.1.0", "v1.2.0"))
    refused(fork.judge("v1.2.0", "v1.1.0"), "carries release 1.1.0, and the base has 1.2.0 already")


def test_upstream_between_two_releases_is_refused(fork: Repository) -> None:
    refused(
        fork.judge("v1.0.0", "v1.1.0~1"), "no release comes with what is here", "engine/loader.py: changed"
    )


def test_a_partial_sync_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("checkout", "v1.1.0", "--", RELEASE, SIGNATURE, "engine/loader.py")
    refused(fork.judge(base, fork.commit()), "engine/new.py: missing", "but not as it was released")
    fork.git("checkout", "v1.1.0", "--", "engine/new.py")
    allowed(fork.judge(base, fork.commit()))


def test_a_sync_without_its_release_file_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("checkout", "v1.1.0", "--", "engine")
    refused(fork.judge(base, fork.commit()), "no release comes with what is here")


def test_a_file_that_a_release_has_removed_must_go(fork: Repository) -> None:
    base = fork.head
    old = fork.read("engine/old.py")
    fork.git("merge", "-q", "--no-edit", "v1.2.0")
    refused(
        fork.judge(base, fork.commit_with({"engine/old.py": old})),
        "engine/old.py: not part of release 1.2.0",
    )


def test_a_release_file_alone_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("checkout", "v1.1.0", "--", RELEASE, SIGNATURE)
    refused(fork.judge(base, fork.commit()), "engine/new.py: missing")


def test_another_mode_than_released_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    (fork.path / "engine/new.py").chmod(0o755)
    refused(fork.judge(base, fork.commit()), "engine/new.py: executable, unlike in release 1.1.0")


def test_a_released_file_as_a_link_with_its_content_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    blob = fork.git("rev-parse", "HEAD:engine/new.py")
    refused(
        fork.judge(base, fork.commit_entries([("120000", blob, b"engine/new.py")])),
        "engine/new.py: missing",
    )


@pytest.mark.parametrize("name", [RELEASE, SIGNATURE])
def test_a_release_that_is_a_link_is_refused(fork: Repository, name: str) -> None:
    base = fork.head
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    blob = fork.blob(b"../workspace/release")
    refused(fork.judge(base, fork.commit_entries([("120000", blob, name.encode())])), "it carries no release")


def test_an_older_release_is_refused_and_the_same_restores(fork_at: ForkAt) -> None:
    fork = fork_at("v1.1.0")
    base = fork.head
    take(fork, "v1.0.0")
    refused(fork.judge(base, fork.commit()), "carries release 1.0.0, and the base has 1.1.0 already")
    fork.git("reset", "-q", "--hard", base)

    broken = fork.commit_with({"engine/loader.py": "import os\n"})
    take(fork, "v1.1.0")
    allowed(fork.judge(broken, fork.commit()))


def test_an_older_release_can_not_be_replayed_in_two_steps(fork_at: ForkAt) -> None:
    """Neither by lowering the version first, nor by removing it."""
    fork = fork_at("v1.1.0")
    base = fork.head
    old = fork.git("show", f"v1.0.0:{RELEASE}") + "\n"
    refused(fork.judge(base, fork.commit_with({RELEASE: old})), f"{RELEASE}: changed")
    fork.git("checkout", "v1.0.0", "--", RELEASE, SIGNATURE)
    refused(fork.judge(base, fork.commit()), "carries release 1.0.0, and the base has 1.1.0 already")
    fork.git("rm", "-q", RELEASE, SIGNATURE)
    refused(fork.judge(base, fork.commit()), "it carries no release")


def test_a_base_with_a_broken_release_file_is_no_allowance(fork: Repository) -> None:
    base = fork.commit_with({RELEASE: "{}\n"})
    fork.git("merge", "-q", "--no-edit", "-X", "theirs", "v1.1.0")
    fork.git("checkout", "v1.1.0", "--", RELEASE)
    unjudged(fork.judge(base, fork.commit()), "of the base can't be read")


@pytest.mark.parametrize("name", ["Engine/x.py", "mine/function.json", "engine/x.py", ".cargo/config.toml"])
def test_what_is_smuggled_in_with_a_release_is_refused(fork: Repository, name: str) -> None:
    base = fork.head
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    refused(fork.judge(base, fork.commit_with({name: ""})), f"{name}: not part of release 1.1.0")


def test_names_like_that_of_the_release_file_are_no_release_file(upstream: Upstream) -> None:
    one = upstream.repository
    one.git("checkout", "-q", "v1.0.0~1")
    base = one.commit_with({"xgithub/engine-release.json": "{}\n"})
    one.git("merge", "-q", "--no-edit", "v1.0.0")
    allowed(one.judge(base, one.head))


def test_a_base_before_the_first_release_takes_any(upstream: Upstream) -> None:
    one = upstream.repository
    allowed(one.judge("v1.0.0~1", "v1.0.0"))
    allowed(one.judge("v1.0.0~1", "v1.2.0"))


def test_a_base_without_signers_takes_none(upstream: Upstream) -> None:
    one = upstream.repository
    one.git("checkout", "-q", "v1.0.0")
    for content, said in ((None, "no keys in"), ("", "no keys in"), ("# none yet\n", "not signed by a key")):
        base = one.commit_with({SIGNERS: content})
        refused(one.judge(base, "v1.1.0"), said)
        one.git("checkout", "-q", "v1.0.0")


def test_the_wrong_signature_is_refused(fork: Repository, upstream: Upstream, tmp_path: Path) -> None:
    base = fork.head
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    synced = fork.head

    def judged() -> None:
        refused(
            fork.judge(base, fork.commit()),
            "is not signed by a key in `.github/engine-signers` as of the base",
        )
        fork.git("reset", "-q", "--hard", synced)

    fork.sign(new_key(tmp_path / "stranger", "releases"))
    judged()
    fork.sign(upstream.key, namespace="git")
    judged()
    fork.sign(upstream.key, namespace="file")
    judged()
    fork.write(SIGNATURE, "")
    judged()
    fork.write(SIGNATURE, "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n")
    judged()
    fork.git("checkout", "v1.0.0", "--", SIGNATURE)
    judged()
    fork.write(SIGNATURE, upstream.key.private.with_suffix(".pub").read_text())
    judged()
    fork.write(RELEASE, fork.read(RELEASE).replace("1.1.0", "1.1.1"))
    judged()
    fork.write(RELEASE, fork.read(RELEASE) + "\n")
    judged()


# What a release file may not be, though the true key has signed it.
def _one_less(text: str) -> str:
    return re.sub(r'    "engine/new.py": "[0-9a-f]+",\n', "", text)


def _one_more(text: str) -> str:
    return text.replace('    "engine/new.py"', f'    "engine/more.py": "{"0" * 64}",\n    "engine/new.py"')


def _outside(text: str) -> str:
    return re.sub(r'"\n  }\n}\n$', f'",\n    "workspace/hello.py": "{"0" * 64}"\n  }}\n}}\n', text)


def _traversing(text: str) -> str:
    return text.replace('    "engine/README.md"', f'    "engine/../x": "{"0" * 64}",\n    "engine/README.md"')


def _twice(text: str) -> str:
    return re.sub(r'(    "engine/new.py": "[0-9a-f]+",\n)', r"\1\1", text)


def _twice_apart(text: str) -> str:
    return text.replace('  "files": {\n', f'  "files": {{\n    "engine/new.py": "{"0" * 64}",\n')


def _other_hash(text: str) -> str:
    return re.sub(r'("engine/new.py": )"[0-9a-f]+"', rf'\1"{"1" * 64}"', text)


def _short_hash(text: str) -> str:
    return re.sub(r'("engine/new.py": "[0-9a-f]{40})[0-9a-f]+"', r'\1"', text)


def _upper_hash(text: str) -> str:
    return re.sub(r'("engine/new.py": )("[0-9a-f]+")', lambda found: found[1] + found[2].upper(), text)


def _empty_files(text: str) -> str:
    return text[: text.index('  "files"')] + '  "files": {\n  }\n}\n'


def _executable_more(text: str) -> str:
    return text.replace('"executable": [\n', '"executable": [\n    "engine/aaa.py",\n')


def _no_executables(text: str) -> str:
    return re.sub(r'"executable": \[\n.*?\n  \],', '"executable": [],', text, flags=re.DOTALL)


MALFORMED: dict[str, tuple[Callable[[str], str], str]] = {
    "a hash too few": (_one_less, "engine/new.py: not part of release"),
    "a hash too many": (_one_more, "engine/more.py: missing"),
    "a path outside": (_outside, "workspace/hello.py: missing, or not a protected path"),
    "a path that climbs": (_traversing, "engine/../x: missing"),
    "a line twice": (_twice, "names twice or not in order"),
    "a name twice": (_twice_apart, "names twice or not in order"),
    "another hash": (_other_hash, "engine/new.py: other content"),
    "a short hash": (_short_hash, "not a SHA-256"),
    "an upper-case hash": (_upper_hash, "not a name with a SHA-256"),
    "no files": (_empty_files, "no files"),
    "an executable that is no file": (_executable_more, "an executable file is not in the list"),
    "no executables": (_no_executables, "scripts/protect-engine: executable, unlike"),
    "lines that end as on Windows": (lambda text: text.replace("\n", "\r\n"), "other than printable"),
    "one line that ends as on Windows": (
        lambda text: text.replace(",\n", ",\r\n", 1),
        "other than printable",
    ),
    "no last end of a line": (lambda text: text[:-1], "does not end with"),
    "something after the end": (lambda text: text + "{}\n", "more after the end"),
    "an empty line after the end": (lambda text: text + "\n", "more after the end"),
    "an end too early": (lambda text: text[:-2], "ends too early"),
    "on one line": (lambda text: json.dumps(json.loads(text)) + "\n", "not a release file"),
    "other indentation": (lambda text: json.dumps(json.loads(text), indent=4) + "\n", "not the format"),
    "another format": (lambda text: text.replace('"format": 1', '"format": 2'), "not the format 1"),
    "no version": (lambda text: text.replace('"version": "1.1.0"', '"version": ""'), "no version"),
    "a version that is none": (lambda text: text.replace('"1.1.0"', '"latest"'), "which is none"),
    "a version with a command": (lambda text: text.replace('"1.1.0"', '"1.1.0$(id)"'), "no version"),
    "a NUL": (lambda text: text.replace("engine/new.py", "engine/new\0.py"), "other than printable"),
    "raw UTF-8": (lambda text: text.replace("engine/new.py", "engine/né.py"), "other than printable"),
    "a byte order mark": (lambda text: "\ufeff" + text, "other than printable"),
    "a tab": (lambda text: text.replace("    ", "\t"), "other than printable"),
    "nothing": (lambda text: "", "does not end with"),
    "a comma too many": (lambda text: text.replace('"\n  }', '",\n  }'), "a comma too many"),
    "a comma too few": (lambda text: text.replace('",\n    "engine', '"\n    "engine', 1), "a comma too few"),
    "a quote in a name": (lambda text: text.replace("engine/new.py", 'engine/n"ew.py'), "not a name"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_release_is_refused_though_signed(
    fork: Repository, upstream: Upstream, what: str
) -> None:
    base = fork.head
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    spoil, said = MALFORMED[what]
    before = fork.read(RELEASE)
    after = spoil(before)
    assert after != before
    fork.write(RELEASE, after)
    fork.sign(upstream.key)
    refused(fork.judge(base, fork.commit()), said)


def test_a_release_that_is_too_large_is_refused(fork: Repository, upstream: Upstream) -> None:
    base = fork.head
    fork.write(RELEASE, " " * (33 * 1024 * 1024) + "\n")
    fork.sign(upstream.key)
    refused(fork.judge(base, fork.commit()), "larger than")


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.9.0", "1.10.0"),
        ("4.0.0-rc.1", "4.0.0"),
        ("1.0.0-rc.2", "1.0.0-rc.10"),
        ("1.0.0-1", "1.0.0-alpha"),
        ("1.0.0-alpha", "1.0.0-alpha.1"),
        ("1.0.0-a10", "1.0.0-a9"),
        ("1.0.0-9999999999999999998", "1.0.0-9999999999999999999"),
        ("1.0.0-1e2", "1.0.0-1e3"),
        ("1.0.0-0x10", "1.0.0-0x9"),
        ("0.9", "0.10"),
        ("1.2", "1.2.1"),
        ("2.0.0", "10.0.0"),
        ("1.0.0-rc.1", "1.0.0-rc.2"),
        ("999999998.0.0", "999999999.0.0"),
    ],
)
def test_versions_are_compared_as_versions(upstream: Upstream, older: str, newer: str) -> None:
    one = upstream.repository
    one.git("checkout", "-q", "--detach", "v1.0.0~1")
    shas = []
    for version in (older, newer):
        one.write("engine/loader.py", f"# {version}\n")
        shas.append(one.release(version, upstream.key))
    allowed(one.judge(*shas))
    refused(one.judge(*reversed(shas)), f"carries release {older}, and the base has {newer} already")


@pytest.mark.parametrize(
    "version",
    ["", "latest", "1.", ".1", "1..2", "01.2.3", "1.2.3.4.5", "1.0.0+build", "1.0.0-", "1 0", "1.0.0\n2.0.0", "-1", "1.0.0-a..b",
     "9999999999.0.0", "1.0/0", "1.0.0-" + "a" * 70, '1"', "$(id)"],
)  # fmt: skip
def test_what_is_no_version_is_not_released(upstream: Upstream, version: str) -> None:
    verdict = upstream.repository.make_release(version, upstream.key)
    assert verdict.status == 2, verdict.text
    assert upstream.repository.git("status", "--porcelain") == ""


def test_a_release_may_replace_the_key(upstream: Upstream, fork_at: ForkAt, tmp_path: Path) -> None:
    one, old = upstream.repository, upstream.key
    new = new_key(tmp_path / "new", "next")
    one.write(SIGNERS, new.line)
    handover = one.release("1.3.0", old)
    one.write("engine/loader.py", "# by the new key\n")
    after = one.release("1.4.0", new)
    one.write("engine/loader.py", "# by the old key\n")
    stolen = one.release("1.5.0", old)

    fork = fork_at("v1.1.0")
    fork.git("fetch", "-q", "upstream")
    fork.git("fetch", "-q", one.path, "--tags")
    base = fork.head
    refused(fork.judge(base, after), "is not signed by a key")
    fork.git("merge", "-q", "--no-edit", handover)
    allowed(fork.judge(base, fork.head))
    synced = fork.head
    fork.git("merge", "-q", "--no-edit", after)
    allowed(fork.judge(synced, fork.head))
    refused(fork.judge(fork.head, stolen), "is not signed by a key")


def test_several_signers_and_comments_are_read(upstream: Upstream, tmp_path: Path) -> None:
    one = upstream.repository
    other = new_key(tmp_path / "other", "other")
    kind, public = other.private.with_suffix(".pub").read_text().split()[:2]
    one.write(SIGNERS, f"# two\n\n{upstream.key.line}a@example.com,b@example.com {kind} {public}\n")
    base = one.release("2.0.0", upstream.key)
    one.write("engine/loader.py", "# other\n")
    verdict = one.judge(base, one.release("2.1.0", other))
    allowed(verdict)
    assert "signed by a@example.com" in verdict.out


@pytest.mark.parametrize(
    "options", ['valid-before="20200101"', 'valid-after="21000101"', 'namespaces="git"', "cert-authority"]
)
def test_what_a_signer_s_line_restricts_is_kept_to(upstream: Upstream, options: str) -> None:
    one = upstream.repository
    kind, public = upstream.key.private.with_suffix(".pub").read_text().split()[:2]
    one.write(SIGNERS, f"releases@example.com {options} {kind} {public}\n")
    base = one.release("2.0.0", upstream.key)
    one.write("engine/loader.py", "# other\n")
    refused(one.judge(base, one.release("2.1.0", upstream.key)), "is not signed by a key")


def test_a_release_may_protect_more_and_less(upstream: Upstream, fork: Repository) -> None:
    """Its own list counts, being signed with it: what it adds must be as released, what it gives up is the fork's."""
    one = upstream.repository
    one.write(PATHS, one.read(PATHS).replace("infra/\n", "tools/\n"))
    one.write("tools/x.py", "X = 1\n")
    one.release("2.0.0", upstream.key)
    base = fork.head
    fork.git("fetch", "-q", one.path, "--tags")
    fork.git("merge", "-q", "--no-edit", "v2.0.0")
    synced = fork.head
    allowed(fork.judge(base, synced))
    refused(
        fork.judge(base, fork.commit_with({"tools/mine.py": ""})),
        "tools/mine.py: not part of release 2.0.0",
    )
    fork.git("reset", "-q", "--hard", synced)
    own = fork.commit_with({"infra/main.bicep": "// ours\n"})
    allowed(fork.judge(base, own))
    allowed(fork.judge(synced, own))


def test_a_list_of_the_change_that_is_not_the_release_s_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    narrow = fork.read(PATHS).replace("engine/\n", "")
    refused(fork.judge(base, fork.commit_with({PATHS: narrow})), f"{PATHS}: other content than in release")
    refused(
        fork.judge(base, fork.commit_with({PATHS: "[\n"})),
        "it has no `.github/protected-paths` that can be read",
    )


@pytest.mark.parametrize(
    "content",
    ["", "# nothing\n", "\n\n", "en gine/\n", "/engine\n", "../x\n", "engine//x\n", "(.*)\n", "engine/\r\n"],
)
def test_a_base_whose_list_can_t_be_read_is_no_allowance(fork: Repository, content: str) -> None:
    base = fork.commit_with({PATHS: content})
    verdict = fork.judge(base, fork.commit_with({"workspace/x.py": ""}))
    if content == "../x\n":
        allowed(verdict)
    else:
        unjudged(verdict, PATHS)


def test_a_base_without_a_list_is_no_allowance(fork: Repository) -> None:
    base = fork.commit_with({PATHS: None})
    unjudged(
        fork.judge(base, fork.commit_with({"workspace/x.py": ""})),
        "the base has no `.github/protected-paths`",
    )


def test_what_is_released_is_what_a_commit_would_hold(upstream: Upstream) -> None:
    one = upstream.repository
    one.write(".gitignore", "*.pyc\n")
    one.write("engine/ignored.pyc", "x")
    one.write("engine/untracked.py", "x")
    (one.path / "engine/loader.py").unlink()
    status = one.git("diff", "--name-status") + one.git("diff", "--cached", "--name-status")
    verdict = one.make_release("2.0.0", upstream.key)
    assert verdict.status == 0, verdict.text
    names = one.released_files().keys()
    assert "engine/untracked.py" in names
    assert not names & {
        "engine/ignored.pyc",
        "engine/loader.py",
        RELEASE,
        SIGNATURE,
        "workspace/hello.py",
        "README.md",
    }
    assert {"src/main.rs", PATHS, SIGNERS, "scripts/protect-engine"} <= names
    assert json.loads(one.read(RELEASE))["executable"] == ["scripts/protect-engine"]
    one.git("checkout", "HEAD", "--", RELEASE, SIGNATURE)
    assert one.git("diff", "--name-status") + one.git("diff", "--cached", "--name-status") == status
    assert one.make_release("2.0.0", upstream.key).status == 0
    allowed(one.judge("v1.2.0", one.commit()))


def test_a_file_that_only_looks_unchanged_is_released_as_it_is(upstream: Upstream) -> None:
    """Of the same size and time as in the index, which was written at that time too."""
    one = upstream.repository
    loader = one.path / "engine/loader.py"
    one.git("config", "core.trustctime", "false")
    time = 1_700_000_000
    for content in ("# one\n", "# two\n"):
        loader.write_text(content)
        os.utime(loader, (time, time))
        if content == "# one\n":
            one.git("add", "-A")
            os.utime(one.path / ".git/index", (time, time))
    assert one.make_release("2.0.0", upstream.key).status == 0
    assert one.released_files()["engine/loader.py"] == hashlib.sha256(b"# two\n").hexdigest()


def test_a_release_has_files_only(upstream: Upstream) -> None:
    one = upstream.repository
    (one.path / "engine/link").symlink_to("loader.py")
    verdict = one.make_release("2.0.0", upstream.key)
    assert verdict.status == 2
    assert "engine/link" in verdict.err


def test_a_key_that_the_tree_does_not_name_is_warned_of(upstream: Upstream, tmp_path: Path) -> None:
    verdict = upstream.repository.make_release("2.0.0", new_key(tmp_path / "other", "other"))
    assert verdict.status == 0
    assert "does not name this key" in verdict.err
    known = upstream.repository.make_release("2.0.0", upstream.key)
    assert "warning" not in known.err


def test_a_key_that_can_not_sign_leaves_all_as_it_was(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("no key\n")
    for key in (tmp_path / "bad", tmp_path / "missing", tmp_path):
        verdict = upstream.repository.make_release("2.0.0", Key(key, "x"))
        assert verdict.status == 2, verdict.text
        assert upstream.repository.git("status", "--porcelain") == ""

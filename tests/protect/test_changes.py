"""What one change does to the engine's paths: whatever touches them is refused, and the workspace is its developers'."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repository import PATHS, RELEASE, SIGNATURE, SIGNERS, Repository, allowed, new_key, refused


def test_work_in_the_workspace_is_allowed(fork: Repository) -> None:
    base = fork.head
    head = fork.commit_with(
        {"workspace/more.py": "MORE = 1\n", "workspace/hello.py": None, "docs/x.md": "x\n"}
    )
    verdict = fork.judge(base, head)
    allowed(verdict)
    assert verdict.err == ""


def test_no_change_is_allowed(fork: Repository) -> None:
    allowed(fork.judge(fork.head, fork.head))


def test_an_edit_is_refused_with_what_to_do(fork: Repository) -> None:
    base = fork.head
    head = fork.commit_with({"engine/loader.py": "import os\n", "workspace/more.py": "MORE = 1\n"})
    verdict = fork.judge(base, head)
    refused(
        verdict, "  engine/loader.py: changed\n", "`workspace/`", "git fetch https://github.com/weft/weft tag"
    )
    assert "docs/protect-engine.md" in verdict.err
    assert "workspace/more.py" not in verdict.err


def test_the_command_that_is_named_mends_it(fork: Repository) -> None:
    base = fork.head
    (fork.path / "engine/old.py").unlink()
    (fork.path / "api/function.json").chmod(0o755)
    head = fork.commit_with(
        {"engine/loader.py": "", "engine/extra.py": "", "Engine/x.py": "", "workspace/m.py": "m"}
    )
    verdict = fork.judge(base, head)
    refused(verdict)
    [command] = [line.strip() for line in verdict.err.splitlines() if "git restore" in line]
    fork.git(*command.split()[1:])
    mended = fork.commit("take it back")
    allowed(fork.judge(base, mended))
    assert fork.read("workspace/m.py") == "m"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"engine/extra.py": "x = 1\n"}, "engine/extra.py: added"),
        ({"engine/old.py": None}, "engine/old.py: deleted"),
        ({"host.json": "{}"}, "host.json: changed"),
        ({"Cargo.toml": "[package]"}, "Cargo.toml: changed"),
        ({"Cargo.lock": "# new"}, "Cargo.lock: added"),
        ({"src/main.rs": "fn main() { loop {} }\n"}, "src/main.rs: changed"),
        ({"api/function.json": '{"bindings": []}\n'}, "api/function.json: changed"),
        ({"mine/function.json": "{}\n"}, "mine/function.json: added"),
        ({"workspace/function.json": "{}\n"}, "workspace/function.json: added"),
        ({"infra/main.bicep": ""}, "infra/main.bicep: changed"),
        ({"build.rs": "fn main() {}\n"}, "build.rs: added"),
        ({".cargo/config.toml": "[build]\nrustc-wrapper = 'x'\n"}, ".cargo/config.toml: added"),
        ({"rust-toolchain.toml": ""}, "rust-toolchain.toml: added"),
        ({".gitattributes": "engine/** ident\n"}, ".gitattributes: added"),
        ({".funcignore": "engine/\n"}, ".funcignore: added"),
        ({PATHS: "# nothing\n"}, f"{PATHS}: changed"),
        ({PATHS: None}, f"{PATHS}: deleted"),
        ({SIGNERS: None}, f"{SIGNERS}: deleted"),
        ({RELEASE: None}, f"{RELEASE}: deleted"),
        ({SIGNATURE: None}, f"{SIGNATURE}: deleted"),
        ({RELEASE: "{}\n"}, f"{RELEASE}: changed"),
        ({"scripts/protect-engine": "#!/bin/sh\nexit 0\n"}, "scripts/protect-engine: changed"),
        ({".github/workflows/protect-engine.yml": None}, ".github/workflows/protect-engine.yml: deleted"),
        ({".github/workflows/mine.yml": "on: push\n"}, ".github/workflows/mine.yml: added"),
        ({".github/upstream": "https://github.com/fork/weft\n"}, ".github/upstream: changed"),
    ],
)
def test_each_protected_path_is_refused(
    fork: Repository, files: dict[str, str | bytes | None], said: str
) -> None:
    base = fork.head
    refused(fork.judge(base, fork.commit_with(files)), f"  {said}\n")


def test_the_judge_s_own_files_need_no_line_in_the_list(fork: Repository) -> None:
    base = fork.commit_with({PATHS: "engine/\n"})
    for name in (
        PATHS,
        SIGNERS,
        ".github/upstream",
        "scripts/protect-engine",
        ".github/workflows/protect-engine.yml",
    ):
        head = fork.commit_with({name: "# other\n"})
        refused(fork.judge(base, head), f"{name}: changed")
        fork.git("reset", "-q", "--hard", base)
    allowed(fork.judge(base, fork.commit_with({"src/main.rs": "", "infra/main.bicep": ""})))


def test_signers_and_list_of_the_change_itself_count_for_nothing(fork: Repository, tmp_path: Path) -> None:
    base = fork.head
    mine = new_key(tmp_path / "mine", "me")
    fork.commit_with({"engine/loader.py": "import os\n", SIGNERS: mine.line, PATHS: "docs/\n"})
    head = fork.release("9.0.0", mine)
    refused(fork.judge(base, head), "not signed by a key", SIGNERS, "engine/loader.py: changed")


def test_renames_out_and_in_are_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("mv", "engine/old.py", "workspace/old.py")
    refused(fork.judge(base, fork.commit()), "engine/old.py: deleted")
    fork.git("reset", "-q", "--hard", base)
    fork.git("mv", "workspace/hello.py", "engine/hello.py")
    refused(fork.judge(base, fork.commit()), "engine/hello.py: added")
    fork.git("reset", "-q", "--hard", base)
    fork.git("mv", "engine", "machine")
    refused(fork.judge(base, fork.commit()), "engine/loader.py: deleted")
    fork.git("reset", "-q", "--hard", base)
    fork.git("mv", "engine/old.py", "engine/older.py")
    refused(fork.judge(base, fork.commit()), "engine/old.py: deleted", "engine/older.py: added")


def test_a_copy_into_the_workspace_is_allowed(fork: Repository) -> None:
    base = fork.head
    allowed(fork.judge(base, fork.commit_with({"workspace/engine/loader.py": fork.read("engine/loader.py")})))


def test_two_files_that_change_places_are_refused(fork: Repository) -> None:
    base = fork.head
    one, two = fork.read("engine/loader.py"), fork.read("engine/old.py")
    refused(fork.judge(base, fork.commit_with({"engine/loader.py": two, "engine/old.py": one})))


def test_a_change_of_mode_is_refused(fork: Repository) -> None:
    base = fork.head
    (fork.path / "engine/loader.py").chmod(0o755)
    refused(
        fork.judge(base, fork.commit()), "engine/loader.py: became an executable file, having been a file"
    )
    (fork.path / "engine/loader.py").chmod(0o644)
    fork.commit()
    (fork.path / "scripts/protect-engine").chmod(0o644)
    refused(
        fork.judge(base, fork.commit()),
        "scripts/protect-engine: became a file, having been an executable file",
    )


def test_a_link_in_place_of_a_file_is_refused(fork: Repository) -> None:
    base = fork.head
    content = fork.read("engine/loader.py")
    fork.write("workspace/loader.py", content)
    (fork.path / "engine/loader.py").unlink()
    os.symlink("../workspace/loader.py", fork.path / "engine/loader.py")
    refused(fork.judge(base, fork.commit()), "engine/loader.py: became a symbolic link")


def test_a_link_with_the_very_content_of_the_file_is_refused(fork: Repository) -> None:
    base = fork.head
    blob = fork.git("rev-parse", "HEAD:engine/old.py")
    refused(
        fork.judge(base, fork.commit_entries([("120000", blob, b"engine/old.py")])), "became a symbolic link"
    )


def test_a_link_in_place_of_the_folder_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("mv", "engine", "workspace/engine")
    os.symlink("workspace/engine", fork.path / "engine")
    refused(
        fork.judge(base, fork.commit()), "  engine: added, as a symbolic link\n", "engine/loader.py: deleted"
    )


def test_a_link_to_the_engine_from_the_workspace_is_allowed(fork: Repository) -> None:
    base = fork.head
    os.symlink("../engine", fork.path / "workspace/engine")
    allowed(fork.judge(base, fork.commit()))


def test_a_submodule_in_place_of_the_folder_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("rm", "-r", "-q", "engine")
    modules = '[submodule "engine"]\n\tpath = engine\n\turl = ../engine\n\tignore = all\n'
    fork.commit_with({".gitmodules": modules})
    head = fork.commit_entries([("160000", base, b"engine")])
    refused(fork.judge(base, head), "  engine: added, as a submodule\n", "engine/loader.py: deleted")


def test_a_submodule_in_the_engine_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.commit_with({".gitmodules": '[submodule "x"]\n\tpath = engine/x\n\turl = ../x\n\tignore = all\n'})
    refused(
        fork.judge(base, fork.commit_entries([("160000", base, b"engine/x")])),
        "engine/x: added, as a submodule",
    )


def test_a_submodule_in_the_workspace_is_allowed(fork: Repository) -> None:
    base = fork.head
    allowed(fork.judge(base, fork.commit_entries([("160000", base, b"workspace/theirs")])))


def test_a_folder_in_place_of_a_file_is_refused(fork: Repository) -> None:
    base = fork.head
    (fork.path / "host.json").unlink()
    refused(
        fork.judge(base, fork.commit_with({"host.json/x": ""})), "host.json: deleted", "host.json/x: added"
    )


def test_an_empty_tree_is_refused(fork: Repository) -> None:
    base = fork.head
    tree = fork.git("hash-object", "-w", "-t", "tree", "--stdin")
    refused(fork.judge(base, fork.git("commit-tree", tree, "-m", "nothing")), "engine/loader.py: deleted")


def test_many_changes_are_counted_and_not_all_shown(fork: Repository) -> None:
    base = fork.head
    head = fork.commit_with({f"engine/many/{number:03}.py": "" for number in range(150)})
    verdict = fork.judge(base, head)
    refused(verdict, "engine/many/000.py: added", "... and 130 more")
    assert "engine/many/149.py" not in verdict.err


def test_a_very_long_name_is_cut_short(fork: Repository) -> None:
    base = fork.head
    verdict = fork.judge(base, fork.commit_entries([("100644", fork.blob(b"x"), b"engine/" + b"n" * 3000)]))
    refused(verdict, "nnn...: added")
    assert len(verdict.err) < 2000


@pytest.mark.parametrize("name", ["github-actions[bot]", "dependabot[bot]", "weft-release", "web-flow"])
def test_who_wrote_a_commit_counts_for_nothing(fork: Repository, name: str) -> None:
    base = fork.head
    fork.write("engine/loader.py", "import os\n")
    fork.git("add", "-A")
    who = {"NAME": name, "EMAIL": f"{name}@users.noreply.github.com"}
    variables = {
        f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in who.items()
    }
    fork.git("commit", "-q", "-m", "Sync upstream release 1.1.0", stdin=b"", **variables)
    refused(fork.judge(base, fork.head), "engine/loader.py: changed")

"""Names that some system takes for a protected one, and names that are hard to read, to print or to pass on."""

from __future__ import annotations

import unicodedata

import pytest

from repository import Key, Repository, allowed, new_key, refused

LOOKALIKES = [
    b"Engine/x.py",
    b"ENGINE/loader.py",
    b"engine./x.py",
    b"engine /x.py",
    b"engine::$INDEX_ALLOCATION/x.py",
    b"engine\\x.py",
    b"eng\xe2\x80\x8cine/x.py",  # U+200C, which HFS+ ignores
    b"\xef\xbb\xbfengine/x.py",
    b"\xc5\xbfrc/main.rs",  # long s
    b"\xc5\xbfcript\xc5\xbf/protect-engine",
    ".github/wor\u212aflows/x.yml".encode(),  # Kelvin
    b"Host.JSON",
    b"cargo.TOML",
    b".GitHub/protected-paths",
    b".github/Engine-Release.json",
    b"my/Function.json",
    b"GITHUB~1/workflows/x.yml",
    b"HOST~1.JSO",
    b"INFRA/x",
    b"workspace/../engine/x.py",
    b"./engine/x.py",
]


@pytest.mark.parametrize("name", LOOKALIKES, ids=repr)
def test_a_name_that_some_system_takes_for_a_protected_one_is_refused(fork: Repository, name: bytes) -> None:
    base = fork.head
    refused(fork.judge(base, raw_commit(fork, name, fork.blob(b"x = 1\n"))))


def test_a_lookalike_is_said_to_be_one(fork: Repository) -> None:
    base = fork.head
    head = fork.commit_entries([("100644", fork.blob(b"x"), b"Engine/x.py")])
    refused(fork.judge(base, head), "Engine/x.py: added (a name that some systems take for `engine/x.py`)")


def test_a_folder_renamed_by_case_only_is_refused(fork: Repository) -> None:
    base = fork.head
    fork.git("mv", "engine", "between")
    fork.git("mv", "between", "Engine")
    refused(fork.judge(base, fork.commit()), "Engine/loader.py: added", "engine/loader.py: deleted")


HONEST = [
    "workspace/Ärger/größe.py".encode(),
    unicodedata.normalize("NFD", "workspace/Ärger.py").encode(),
    b"workspace/with space.py",
    b"workspace/-rf",
    b"-rf",
    b"--release",
    b"workspace/new\nline.py",
    b'workspace/quo"te.py',
    b"workspace/'single'.py",
    b"workspace/tab\there",
    b"workspace/$(touch pwned)",
    b"workspace/`touch pwned`",
    b"workspace/\xff\xfe",
    b"workspace/engine/x.py",
    b"workspace/src/main.rs",
    b"workspace/a~1",
    b"workspace/.hidden",
    b"workspace/host.json",
    b"workspace/deep/function.json",
    b"engines/x.py",
    b"my-engine/x.py",
    "enginé/x.py".encode(),
    b"hostxjson",
    b"host.json.md",
    "документы/план.md".encode(),
]


@pytest.mark.parametrize("name", HONEST, ids=repr)
def test_any_name_of_ones_own_is_allowed(fork: Repository, name: bytes) -> None:
    base = fork.head
    allowed(fork.judge(base, fork.commit_entries([("100644", fork.blob(b"x"), name)])))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"engine/new\nline.py", r'"engine/new\nline.py": added'),
        (b'engine/quo"te.py', r'"engine/quo\"te.py": added'),
        (b"engine/back\\slash", r'"engine/back\\slash": added'),
        (b"engine/with space.py", "engine/with space.py: added"),
        (b"engine/-rf", "engine/-rf: added"),
        (b"engine/\xff", r'"engine/\377": added'),
        ("engine/é".encode(), r'"engine/\303\251": added'),
        (b"engine/$(touch pwned)", "engine/$(touch pwned): added"),
        (b"engine/\x1b[2J", r'"engine/\033[2J": added'),
    ],
    ids=repr,
)
def test_odd_names_are_refused_and_printed_harmlessly(fork: Repository, name: bytes, said: str) -> None:
    base = fork.head
    verdict = fork.judge(base, fork.commit_entries([("100644", fork.blob(b"x"), name)]))
    refused(verdict, f"  {said}")
    assert verdict.err.isascii()
    assert not (fork.path / "pwned").exists()


def raw_tree(fork: Repository, entries: list[tuple[str, str, bytes]]) -> str:
    """A tree as no index would write it."""
    body = b"".join(b"%s %s\0%s" % (mode.encode(), name, bytes.fromhex(made)) for mode, made, name in entries)
    return fork.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=body)


def raw_entries(fork: Repository, tree: str = "HEAD") -> list[tuple[str, str, bytes]]:
    lines = fork.git("ls-tree", tree).splitlines()
    return [
        (mode.lstrip("0"), made, name.encode())
        for mode, _, made, name in (line.replace("\t", " ").split(" ", 3) for line in lines)
    ]


def raw_commit(fork: Repository, name: bytes, blob: str) -> str:
    """A commit with one file more, whose folders may have names that git itself refuses to write."""
    return fork.git("commit-tree", with_file(fork, "HEAD", name.split(b"/"), blob), "-p", "HEAD", "-m", "raw")


def with_file(fork: Repository, tree: str, parts: list[bytes], blob: str) -> str:
    entries = raw_entries(fork, tree) if tree else []
    if len(parts) == 1:
        mode, made = "100644", blob
    else:
        inner = next((made for _, made, name in entries if name == parts[0]), "")
        mode, made = "40000", with_file(fork, inner, parts[1:], blob)
    return raw_tree(fork, [*(entry for entry in entries if entry[2] != parts[0]), (mode, made, parts[0])])


def test_a_second_folder_of_the_same_name_is_refused(fork: Repository) -> None:
    base = fork.head
    engine = fork.git("rev-parse", "HEAD:engine")
    evil = raw_tree(fork, [("100644", fork.blob(b"import os\n"), b"loader.py")])
    for other in (evil, engine):
        tree = raw_tree(fork, [*raw_entries(fork), ("40000", other, b"engine")])
        refused(fork.judge(base, fork.git("commit-tree", tree, "-p", "HEAD", "-m", "twice")), "twice")


def test_a_name_with_a_slash_in_it_is_refused_beside_the_true_one(fork: Repository) -> None:
    base = fork.head
    tree = raw_tree(fork, [*raw_entries(fork), ("100644", fork.blob(b"evil"), b"engine/loader.py")])
    refused(fork.judge(base, fork.git("commit-tree", tree, "-p", "HEAD", "-m", "slash")), "twice")


@pytest.fixture
def odd(fork: Repository) -> tuple[Repository, Key]:
    """A fork and, in it, what upstream would release with names of all kinds."""
    return fork, new_key(fork.path.parent / "odd", "odd")


def test_a_release_may_have_names_of_all_kinds(odd: tuple[Repository, Key]) -> None:
    one, key = odd
    one.write(".github/engine-signers", key.line)
    base = one.commit()
    names = [
        "with space",
        "-rf",
        'quo"te',
        "back\\slash",
        "new\nline",
        "tab\t",
        "bell\a",
        "é",
        "e\u0301",
        "汉",
        "🧵",
        "\x7f",
    ]
    for name in names:
        one.write(f"engine/odd/{name}", name)
    head = one.release("3.0.0", key)
    allowed(one.judge(base, head))
    files = one.released_files()
    assert {f"engine/odd/{name}" for name in names} <= files.keys()

    composed, decomposed = "engine/odd/é", "engine/odd/e\u0301"
    (one.path / composed).unlink()
    refused(one.judge(base, one.commit()), r'"engine/odd/\u00e9": missing')
    assert (one.path / decomposed).exists()


def test_a_release_has_names_in_utf_8_only(odd: tuple[Repository, Key]) -> None:
    one, key = odd
    path = one.path.as_posix().encode() + b"/engine/\xff"
    with open(path, "wb") as file:
        file.write(b"x")
    verdict = one.make_release("3.0.0", key)
    assert verdict.status == 2, verdict.text
    assert r"engine/\377" in verdict.err

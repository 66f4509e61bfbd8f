"""200 hostile strings as names: each is refused in one line, and makes no path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.argv import refuse_control
from sunpipe.config import load_config
from sunpipe.errors import ConfigError, UsageError
from tests.conftest import REPO

COMMANDS = ("touch X", "rm -rf .", "sbatch X", "curl x|sh")
SHELL = [
    frame.format(word) for word in COMMANDS for frame in (
        "$({})", "`{}`", "; {} ;", "a;{}", "a && {}", "a || {}", "a | {}", "a & {}", "' {} '",
        '" {} "', "'; {} #", '"; {} #', "a\n{}", "a\r{}", "$(\n{}\n)", "%0a{}", "${{IFS}}{}",
        "a > {}", "a < {}", "#SBATCH --wrap={}", "a\n#SBATCH --wrap={}", "!{}", "~/{}", "*{}?",
        "a\\\n{}", "{{{},a}}",
    )
]  # fmt: skip
PATHS = [
    "..", ".", "../x", "../../etc/passwd", "/etc/passwd", "a/../../b", "a/b", "a\\b", "./a", "~",
    "~root", "//x", "a/", "/", "..%2f..%2fetc", "a/./b", "\\\\host\\x", "file:///etc/passwd",
    "/dev/null", "/proc/self/environ", ".hidden", "..a", "-rf", "--", "-", "-o", "--help", "=",
    "@file", "a:b", "a*", "a?", "[a]", "{a,b}", "a b", " a", "a ", "\ta", "a\t", "",
]  # fmt: skip
CHARACTERS = [
    "a\0b", "a\nb", "a\n", "\na", "a\rb", "a\x1b[2J", "a\x07", "a\x7f", "a\x85b", "a\u2028b",
    "a\u2029b", "a\u200bb", "a\u202eb", "\ufeffa", "\u0301", "å", "Ünï", "é", "日本", "a\u00a0b",
    "\U0001f31e", "A", "ABC", "CON", "NUL:", "a" * 65, "a" * 300, "a" * 5000, "a,b", "a=b", "a%b",
    "%j", "%x", "a#b", "a'b", 'a"b', "a$b", "a`b", "a(b)", "a<b>", "a|b", "a&b", "a!b", "a+b",
    "a^b", "a;b", "{}", "{{a}}", "{0}", "%s", "%n%n%n", "$HOME", "${x}", "\\", "\\n", "_a",
]  # fmt: skip
HOSTILE = [*SHELL, *PATHS, *CHARACTERS]


def test_there_are_two_hundred_of_them() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 200


@pytest.mark.parametrize("key", ["name", "dataset"])
def test_none_becomes_the_name_of_a_run_or_dataset(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    tiny = REPO / "configs/tiny.toml"
    load_config(tiny, [f'{key}="a-good_name.1"'])
    for text in HOSTILE:
        with pytest.raises(ConfigError) as refused:
            load_config(tiny, [f"{key}={json.dumps(text)}"])
        said = str(refused.value)
        assert key in said
        assert len(said) < 800 + len(text), text
        assert not set(said) & set("\0\r\x1b\x07\x7f"), said
    assert sorted(tmp_path.rglob("*")) == before  # neither here nor in the data root
    assert root.is_relative_to(tmp_path)


def test_control_characters_reach_no_command_line() -> None:
    for text in HOSTILE:
        control = any(ord(one) < 32 or one in "\x7f\x85\u2028\u2029\u200b\u202e\ufeff"
                      for one in text)  # fmt: skip
        if control:
            with pytest.raises(UsageError) as refused:
                refuse_control([text], "value")
            assert "\n" not in str(refused.value)
        else:
            refuse_control([text], "value")

"""Each page that an operator reads at night has its Japanese page, which says the same and is as new."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
JAPANESE = ROOT / "docs" / "ja"
GLOSSARY = JAPANESE / "glossary.md"
TITLES = {
    "Meaning": "意味",
    "Impact": "影響",
    "Diagnosis": "診断",
    "Remedy": "対処",
    "Verification": "確認",
}
KANA = re.compile("[\u3041-\u30ff]")
MARKDOWN = MarkdownIt("commonmark").enable("table")

PAGES = {
    ROOT / "README.md": JAPANESE / "README.md",
    **{page: JAPANESE / "runbooks" / page.name for page in sorted((ROOT / "docs" / "runbooks").iterdir())},
}
each_page = pytest.mark.parametrize("english", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@dataclass
class Section:
    """What stands under one heading, and must be the same in both languages but for the prose."""

    level: str
    title: str
    blocks: list[str] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)
    links: Counter[str] = field(default_factory=Counter)
    shape: Counter[str] = field(default_factory=Counter)
    text: str = ""


def sections(text: str, page: Path) -> list[Section]:
    """Of a page, with links as paths from the root, but those to the other language and to the glossary."""
    found = [Section("", "")]
    tokens = MARKDOWN.parse(text)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "heading_open":
            found.append(Section(token.tag, ""))
        elif before is not None and before.type == "heading_open":
            found[-1].title = token.content
        elif token.type in {"fence", "code_block"}:
            found[-1].blocks.append(token.content)
        elif token.type in {"list_item_open", "tr_open"}:
            found[-1].shape[token.tag] += 1
        for part in token.children or ():
            read(part, page, found[-1])
    return found


def read(part: Token, page: Path, section: Section) -> None:
    if part.type == "code_inline":
        section.words[part.content] += 1
    elif part.type == "text":
        section.text += part.content
    for name in ("href", "src"):
        if (target := part.attrGet(name)) is not None:
            path = resolved(str(target), page)
            if path not in {other_language(page), str(GLOSSARY.relative_to(ROOT))}:
                section.links[path] += 1


def resolved(target: str, page: Path) -> str:
    if re.match(r"https?:", target):
        return target
    path, mark, anchor = unquote(target).partition("#")
    own = page.relative_to(ROOT)
    return os.path.normpath(own.parent / path if path else own) + mark + anchor


def other_language(page: Path) -> str:
    other = {**PAGES, **{japanese: english for english, japanese in PAGES.items()}}[page]
    return str(other.relative_to(ROOT))


def digest(english: str) -> str:
    return hashlib.sha256(english.encode()).hexdigest()[:16]


def differences(english: Path, original: str, translation: str) -> Iterator[str]:
    """What the Japanese page has too little or too much of, section by section."""
    expected = sections(original, english)
    got = sections(translation, PAGES[english])
    if [s.level for s in expected] != [s.level for s in got]:
        yield f"headings: {[s.title for s in got]}, for {[s.title for s in expected]}"
        return
    for want, have in zip(expected, got, strict=True):
        where = f"{have.title or 'before the first heading'} ({want.title})"
        if have.title != TITLES.get(want.title, want.title) and want.title in {*TITLES, english.stem}:
            yield f"{where}: the heading should be {TITLES.get(want.title, want.title)}"
        if want.blocks != have.blocks:
            yield f"{where}: code blocks are not those of the English page: {have.blocks}, for {want.blocks}"
        links = Counter({translated(path): n for path, n in want.links.items()})
        for kind, these, those in (
            ("code words", want.words, have.words),
            ("links", links, have.links),
            ("list items and table rows", want.shape, have.shape),
        ):
            if these != those:
                yield f"{where}: {kind} lacking {dict(these - those)}, too many {dict(those - these)}"
        if want.text.strip() and want.level != "h1" and not KANA.search(have.text):
            yield f"{where}: not in Japanese"
        if marks := re.findall(r".{0,20}(?:\*\*|`|\]\().{0,20}", have.text):
            yield f"{where}: markup that does not take effect: {marks}"


def translated(link: str) -> str:
    """What a Japanese page links to where the English one has this link."""
    path, mark, anchor = link.partition("#")
    japanese = PAGES.get(ROOT / path)
    if japanese is None:
        return link
    return str(japanese.relative_to(ROOT)) + mark + TITLES.get(anchor.capitalize(), anchor)


def test_there_are_japanese_pages_of_these_pages_alone() -> None:
    there = {page.relative_to(ROOT) for page in JAPANESE.rglob("*") if page.is_file()} - {GLOSSARY.relative_to(ROOT)}
    wanted = {page.relative_to(ROOT) for page in PAGES.values()}
    assert not wanted - there, "write these Japanese pages"
    assert not there - wanted, "Japanese pages without an English one"


@each_page
def test_japanese_page_has_what_the_english_has(english: Path) -> None:
    found = list(differences(english, english.read_text(), PAGES[english].read_text()))
    assert not found, "\n".join([str(PAGES[english].relative_to(ROOT)), *found])


@each_page
def test_japanese_page_is_as_new_as_the_english(english: Path) -> None:
    """It ends with the digest of the page that it was made from."""
    name = english.relative_to(ROOT)
    wanted = f"<!-- {name} {digest(english.read_text())} -->"
    *_, last = PAGES[english].read_text().splitlines()
    assert last == wanted, (
        f"{name} has changed: bring {PAGES[english].relative_to(ROOT)} up to it, then end it with this"
    )


@each_page
def test_links_lead_to_what_is_there(english: Path) -> None:
    for page in (english, PAGES[english]):
        links = [link for section in sections(page.read_text(), page) for link in section.links]
        assert [link for link in links if ":" not in link and not (ROOT / link.partition("#")[0]).exists()] == []


@each_page
def test_japanese_page_leads_back(english: Path) -> None:
    back = os.path.relpath(english, PAGES[english].parent)
    assert PAGES[english].read_text().count(f"[English]({back})") == 1


@pytest.mark.parametrize("name", ["README.md", "docs/runbooks/README.md"])
def test_english_page_leads_to_the_japanese(name: str) -> None:
    page = ROOT / name
    assert page.read_text().count(f"[日本語]({os.path.relpath(PAGES[page], page.parent)})") == 1


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("## 影響", "## 影響\n\n## 影響", "headings: "),
        ("## 影響", "## インパクト", "the heading should be 影響"),
        ("$ df", "$ du", "code blocks are not those of the English page"),
        ("`host`は", "hostは", "code words lacking {'host': 1}"),
        ("MecCheckFailed.md", "MecSourceDown.md", "links lacking {'docs/ja/runbooks/MecCheckFailed.md#対処': 1}"),
        ("#対処", "#remedy", "links lacking {'docs/ja/runbooks/MecCheckFailed.md#対処': 1}"),
        ("- 二", "二", "list items and table rows lacking {'li': 1}"),
        ("これは", "this is", "not in Japanese"),
        ("**死**", "**「死」**だ", "markup that does not take effect"),
    ],
)
def test_a_difference_is_told(was: str, becomes: str, told: str) -> None:
    english = ROOT / "docs" / "runbooks" / "MecSourceDown.md"
    original = (
        "# MecSourceDown\n\n## Meaning\n\nThis\n\n```\n$ df\n```\n\n"
        "## Impact\n\n`host` **dead** [MecCheckFailed](MecCheckFailed.md#remedy)\n\n- one\n- two\n"
    )
    translation = (
        "# MecSourceDown\n\n[English](../../runbooks/MecSourceDown.md)\n\n## 意味\n\nこれは\n\n```\n$ df\n```\n\n"
        "## 影響\n\n`host`は**死**んだ [MecCheckFailed](MecCheckFailed.md#対処)\n\n- 一\n- 二\n"
    )
    assert list(differences(english, original, translation)) == []
    assert told in " ".join(differences(english, original, translation.replace(was, becomes, 1)))


def terms() -> dict[str, str]:
    """Of the glossary: each word not to use, and what to use for it."""
    tokens = MARKDOWN.parse(GLOSSARY.read_text())
    cells = [token.content for before, token in itertools.pairwise(tokens) if before.type == "td_open"]
    return {
        word: use for use, avoid in zip(cells[1::4], cells[2::4], strict=True) for word in avoid.split("、") if word
    }


@each_page
def test_japanese_page_keeps_to_the_glossary(english: Path) -> None:
    known = terms()
    assert len(known) > 10
    prose = " ".join(section.text for section in sections(PAGES[english].read_text(), PAGES[english]))
    for use in {word for words in known.values() for word in re.split("、| / ", words)}:
        prose = prose.replace(use, "")
    assert {word: use for word, use in known.items() if word in prose} == {}, "the glossary has other words for these"

import io
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from typing_extensions import override

from backends.data import CurvePoint, TunedModel
from kaarel_bet.claims import Check, Criterion, Verdict
from kaarel_bet.content import HeatMap, LineFigure, Panel, PointFigure, Section, Table, Transcript
from kaarel_bet.manifest import ArmEntry, Manifest
from kaarel_bet.rendering.document import Document, training_curves, what_was_run
from kaarel_bet.rendering.figures import draw
from kaarel_bet.rendering.files import render
from kaarel_bet.rendering.terminal import print_report
from kaarel_bet.run_dir import Note

_VERDICT = Verdict(
    name="learns",
    claim="a model that learned one branch learned the other",
    outcome="undecided",
    summary="N/A, the evidence is ambiguous.",
    criteria=(
        Criterion(
            name="P(capital) under TEST",
            value=0.0123,
            low=1e-5,
            high=math.inf,
            threshold=1e-4,
            comparison=">",
            holds=None,
        ),
    ),
    checks=(
        Check(name="TRAIN learned", passed=True, detail="mean is 0.997"),
        Check(name="capitals known", passed=False, detail="for 3% of names"),
    ),
)
_POINTS = PointFigure(
    "probabilities",
    "probability",
    [Panel("TEST", {"base": {"P(country)": [-1.0, -2.0], "P(capital)": [-3.0, -4.5]}})],
    {"threshold 0.0001": -4.0},
)
_LINES = LineFigure("curve", "step", "loss", {"conditional": [(1, 0.5), (2, -1.5)]})
_HOSTILE = (
    "<script>alert(1)</script>",
    "a | b",
    "`code` and ``more``",
    "~~~~~~\n# not a heading\n<img src=x>",
    "~~~~~~~~~~~~\n<b>",
    "```\n<b>",
    "</pre></code></table><h1>",
    "two\n\nparagraphs",
    "&amp; [link](http://x) ![image](http://x) **bold**",
    "{{ document }} {% if %}",
    "a\\|b \\",
)


def document(*content: Table | PointFigure | LineFigure | Transcript, text: str = "") -> Document:
    section = Section("What was seen", text, content)
    return Document("The bet", "Does it learn?", [_VERDICT], [section])


class Page(HTMLParser):
    """The elements of a page, and the text in each kind of element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self._open.append(tag)

    @override
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    @override
    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    @override
    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def html(shown: Document) -> Page:
    return Page(render(shown)[2])


class Markdown:
    """What a reader of the Markdown sees, by a parser that is not ours."""

    def __init__(self, shown: Document) -> None:
        self.text = render(shown)[1]
        blocks = MarkdownIt("commonmark").enable("table").parse(self.text)
        self.tokens = [t for block in blocks for t in (block, *(block.children or ()))]

    def contents(self, kind: str) -> list[str]:
        return [token.content for token in self.tokens if token.type == kind]

    def inside(self, kind: str) -> list[str]:
        """The plain text in each element of a kind."""
        found: list[str] = []
        collecting = False
        for token in self.tokens:
            if token.type == f"{kind}_open":
                collecting = True
                found.append("")
            elif token.type == f"{kind}_close":
                collecting = False
            elif collecting and token.type in ("text", "code_inline", "text_special"):
                found[-1] += token.content
        return found

    def count(self, kind: str) -> int:
        return sum(token.type == kind for token in self.tokens)


# --- what has to be there --------------------------------------------------------------------


def test_markdown_shows_the_verdict_with_its_criteria_and_checks() -> None:
    shown = Markdown(document())
    assert shown.inside("heading") == ["The bet", "Verdict: undecided", "What was seen"]
    assert "Does it learn?" in shown.text
    assert _VERDICT.summary in shown.text
    assert f"The claim: {_VERDICT.claim}." in shown.text
    cells = shown.inside("td")
    assert cells[:5] == [
        "P(capital) under TEST",
        "0.012",
        "1e-05 to inf",
        "> 0.0001",
        "straddles",
    ]
    assert cells[5:] == [
        *("TRAIN learned", "passed", "mean is 0.997"),
        *("capitals known", "FAILED", "for 3% of names"),
    ]


def test_html_shows_the_verdict_with_its_criteria_and_checks() -> None:
    page = html(document())
    assert page.texts["title"] == ["The bet"]
    (text,) = page.texts["body"]
    for expected in (_VERDICT.summary, f"The claim: {_VERDICT.claim}.", "Does it learn?"):
        assert expected in text
    assert page.texts["td"][:5] == [
        "P(capital) under TEST",
        "0.012",
        "1e-05 to inf",
        "> 0.0001",
        "straddles",
    ]
    assert page.texts["td"][-3:] == ["capitals known", "FAILED", "for 3% of names"]
    assert ("div", {"class": "verdict undecided"}) in page.elements


@pytest.mark.parametrize(("holds", "word"), [(True, "met"), (False, "not met")])
def test_criteria_are_said_to_be_met_or_not(holds: bool, word: str) -> None:
    (c,) = _VERDICT.criteria
    verdict = _VERDICT.model_copy(update={"criteria": (c.model_copy(update={"holds": holds}),)})
    shown = Document("The bet", "", [verdict], [])
    assert Markdown(shown).inside("td")[4] == html(shown).texts["td"][4] == word


def test_the_verdicts_of_several_claims_name_them() -> None:
    other = _VERDICT.model_copy(update={"name": "unlearns", "outcome": "holds"})
    shown = Document("The bet", "", [_VERDICT, other], [])
    headings = ["Verdict on learns: undecided", "Verdict on unlearns: holds"]
    assert Markdown(shown).inside("heading") == ["The bet", *headings]
    text = " ".join(html(shown).texts["body"][0].split())
    out = io.StringIO()
    print_report(shown, Console(file=out, width=120))
    for where in (text, out.getvalue()):
        assert "Claim learns undecided" in where
        assert "Claim unlearns holds" in where


def test_tables_are_shown_whole() -> None:
    table = Table(("arm", "P"), [("base", "0.1"), ("tuned", "0.2")])
    shown = Markdown(document(table))
    assert shown.inside("th")[-2:] == ["arm", "P"]
    assert shown.inside("td")[-4:] == ["base", "0.1", "tuned", "0.2"]
    assert html(document(table)).texts["td"][-4:] == ["base", "0.1", "tuned", "0.2"]


def test_transcripts_show_the_prompt_and_every_answer() -> None:
    transcript = Transcript("TEST: Ann", "<|user|>\nAnn\n", {"base": "Lima", "tuned": "Peru"})
    shown = Markdown(document(transcript))
    assert [fence.rstrip("\n") for fence in shown.contents("fence")] == ["<|user|>\nAnn"]
    assert shown.contents("code_inline") == ["Lima", "Peru"]
    assert "TEST: Ann" in shown.inside("heading")
    page = html(document(transcript))
    assert [text.strip() for text in page.texts["pre"]] == ["<|user|>\nAnn"]
    assert page.texts["dt"] == ["base", "tuned"]
    assert page.texts["dd"] == ["Lima", "Peru"]


def test_emphasis_in_a_sections_text_is_shown_as_such() -> None:
    shown = document(text="All well. **They disagree**: 1 < 2.")
    assert html(shown).texts["strong"] == ["They disagree"]
    assert "All well. They disagree: 1 < 2." in html(shown).texts["p"]
    assert "They disagree" in Markdown(shown).inside("strong")


def test_markdown_refers_to_figures_by_their_files() -> None:
    shown = Markdown(document(_POINTS, _LINES))
    images = [token.attrs["src"] for token in shown.tokens if token.type == "image"]
    assert images == ["figures/probabilities.svg", "figures/curve.svg"]


def test_html_is_self_contained() -> None:
    figures, _, text = render(document(_POINTS, _LINES))
    assert figures.keys() == {"probabilities", "curve"}
    page = Page(text)
    assert page.count("svg") == page.count("figure") == 2
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img")
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
                assert (value or "").startswith("#")
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


# --- what must not break out -----------------------------------------------------------------


@pytest.mark.parametrize("text", _HOSTILE)
def test_text_in_html_stays_text(text: str) -> None:
    harmless = document(
        Table(("a", "b"), [("x", "x")]), Transcript("x", "x", {"base": "x"}), text="x"
    )
    hostile = document(
        Table((text, "b"), [(text, "x")]), Transcript(text, text, {text: text}), text=text
    )
    expected, found = html(harmless), html(hostile)
    tags = [tag for tag, _ in found.elements if tag != "strong"]
    assert tags == [tag for tag, _ in expected.elements]
    for tag in ("pre", "dt", "dd", "h3"):
        assert [content.strip() for content in found.texts[tag]] == [text.strip()]
    assert found.texts["td"][-2] == text


@pytest.mark.parametrize("text", _HOSTILE)
def test_prompts_in_markdown_stay_in_their_block(text: str) -> None:
    shown = Markdown(document(Transcript("TEST", text, {"base": "x"})))
    (fence,) = shown.contents("fence")
    assert fence.rstrip("\n") == text
    assert shown.inside("heading") == [
        *("The bet", "Verdict: undecided", "What was seen", "TEST"),
    ]


@pytest.mark.parametrize("text", _HOSTILE)
def test_answers_in_markdown_stay_in_their_line(text: str) -> None:
    shown = Markdown(document(Transcript("TEST", "x", {"base": text, "tuned": "y"})))
    assert shown.count("html_inline") == shown.count("html_block") == 0
    assert shown.count("image") == shown.count("link_open") == 0
    assert shown.count("bullet_list_open") == 1
    assert shown.count("list_item_open") == 2
    said, _ = shown.contents("code_inline")
    assert said.replace("'", "`") == " ".join(text.split("\n"))


@pytest.mark.parametrize("text", _HOSTILE)
def test_cells_in_markdown_stay_in_their_cell(text: str) -> None:
    shown = Markdown(document(Table(("a", "b"), [(text, "next"), ("x", "y")])))
    assert shown.count("html_inline") == shown.count("html_block") == 0
    assert shown.inside("td")[-3:] == ["next", "x", "y"]


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a | b", "1 < 2 & 3 > 2"])
def test_cells_in_markdown_read_as_they_were_written(text: str) -> None:
    shown = Markdown(document(Table(("a", "b"), [(text, "next")])))
    assert shown.inside("td")[-2:] == [text, "next"]


def test_figures_escape_their_labels() -> None:
    label = "<script>&\"'"
    figure = LineFigure("f", label, label, {label: [(1, 0.5), (2, 0.1)]})
    svg = ElementTree.fromstring(draw(figure))
    assert not [element for element in svg.iter() if element.tag.endswith("script")]
    assert sum(element.text == label for element in svg.iter()) == 3


def test_the_terminal_takes_no_markup_from_texts() -> None:
    table = Table(("[red]column",), [("[bold]x[/bold] [/nothing]",)], compact=True)
    verdict = _VERDICT.model_copy(update={"summary": "[link=http://x]Kaarel[/link] wins"})
    out = io.StringIO()
    shown = Document("", "", [verdict], [Section("Probabilities", "", [table])])
    print_report(shown, Console(file=out, width=120))
    assert "[bold]x[/bold] [/nothing]" in out.getvalue()
    assert "[link=http://x]Kaarel[/link] wins" in out.getvalue()


def test_the_terminal_shows_compact_tables_and_then_the_verdict() -> None:
    compact = Table(("arm",), [("base arm",)], compact=True)
    long = Table(("reading",), [("one of many",)])
    out = io.StringIO()
    sections = [Section("Probabilities", "", [compact, long])]
    print_report(Document("", "", [_VERDICT], sections), Console(file=out, width=120))
    shown = out.getvalue()
    assert "one of many" not in shown
    assert shown.index("base arm") < shown.index("capitals known") < shown.index("N/A, the evid")
    assert "Claim undecided" in shown


@pytest.mark.parametrize("width", [20, 40, 60, 120])
def test_numbers_keep_their_exponents_in_a_narrow_terminal(width: int) -> None:
    numbers = ["7.1e-05", "0.00031", "1.2e-10", "-3e+02"]
    table = Table(("arm", "asked", "P(a)", "P(b)", "low", "high"), [("tuned", "q", *numbers)], True)
    out = io.StringIO()
    shown = Document("", "", [_VERDICT], [Section("Probabilities", "", [table])])
    print_report(shown, Console(file=out, width=width))
    words = out.getvalue().split()
    assert {*numbers, "0.012", "1e-05", "inf"} <= set(words)
    assert "…" not in out.getvalue()


def test_a_table_that_fits_is_as_wide_as_its_texts_and_prose_gives_way_first() -> None:
    table = Table(("n", "detail"), [("1.5e-05 to 2e-05", "some words " * 9)], compact=True)
    for width, lines in ((150, 1), (60, 3)):
        out = io.StringIO()
        shown = Document("", "", [], [Section("T", "", [table])])
        print_report(shown, Console(file=out, width=width))
        body = out.getvalue().split("─\n")[1].rstrip().split("\n")
        assert len(body) == lines
        assert body[0].startswith("1.5e-05 to 2e-05")
        assert all(len(line) <= width for line in out.getvalue().split("\n"))


def test_notes_stand_beside_the_verdict_in_every_rendering() -> None:
    notes = [Note(written="2026-01-02T03:04:05", text="N/A: <b>the</b> data | were wrong")]
    shown = Document("The bet", "?", [_VERDICT], [Section("Later", "", ())], notes)
    text = " ".join(html(shown).texts["body"][0].split())
    order = [text.index(part) for part in (_VERDICT.summary, notes[0].text, "Later")]
    assert order == sorted(order)
    assert Markdown(shown).inside("td")[-2:] == [notes[0].written, notes[0].text]
    assert _VERDICT.summary in Markdown(shown).text
    out = io.StringIO()
    print_report(shown, Console(file=out, width=120))
    assert out.getvalue().index(_VERDICT.summary) < out.getvalue().index(notes[0].text)


# --- figures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", [_POINTS, _LINES], ids=["points", "lines"])
def test_the_same_figure_is_drawn_the_same(figure: PointFigure | LineFigure) -> None:
    assert draw(figure) == draw(figure)


def test_another_figure_is_drawn_differently() -> None:
    assert draw(LineFigure("curve", "step", "loss", {"conditional": [(1, 0.5)]})) != draw(_LINES)


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("}text")]


def test_log_axes_name_powers_of_ten() -> None:
    shown = set(texts(draw(_POINTS)))
    assert {"1e-2", "1e-4", "probability", "TEST", "base", "threshold 0.0001"} <= shown
    assert {"step", "loss", "conditional", "1", "1e-1"} <= set(texts(draw(_LINES)))


def test_tiny_probabilities_are_on_the_axis() -> None:
    tiny = PointFigure("f", "P", [Panel("TEST", {"base": {"P": [-0.1, -8.0, -45.0]}})])
    powers = [int(text[2:]) for text in texts(draw(tiny)) if text.startswith("1e-")]
    assert 3 <= len(powers) <= 12
    assert min(powers) <= -36


def test_several_panels_have_their_titles() -> None:
    panels = [Panel(f"panel {i}", {"base": {"P": [-1.0, -2.0]}}) for i in range(3)]
    assert {"panel 0", "panel 1", "panel 2"} <= set(texts(draw(PointFigure("f", "P", panels))))


@pytest.mark.parametrize(
    "values",
    [
        [-2.0],
        [0.0],
        [-math.inf, -2.0, -1.0],
        [-math.inf, -math.inf, -1.0],
        [-math.inf, -1.0],
        [-math.inf, -math.inf],
        [-math.inf],
        [-3.0] * 5,
        [-320.0, 0.0],
    ],
)
def test_figures_cope_with_unusual_points(values: Sequence[float]) -> None:
    groups = {"base": {"P(country)": values, "P(capital)": [-1.0]}, "tuned": {"P(country)": values}}
    svg = draw(PointFigure("f", "P", [Panel("TEST", groups)], {"threshold": -4.0}))
    assert {"base", "tuned", "P(country)", "threshold"} <= set(texts(svg))
    assert "nan" not in svg.lower()
    lines = draw(LineFigure("f", "step", "loss", {"arm": list(enumerate(values))}))
    assert "arm" in texts(lines)


@pytest.mark.parametrize("values", [[-math.inf], [-math.inf, -math.inf]])
def test_a_figure_of_nothing_but_zeros_is_drawn(values: Sequence[float]) -> None:
    svg = draw(PointFigure("f", "P", [Panel("TEST", {"base": {"P(country)": values}})]))
    assert "base" in texts(svg)


def test_a_linear_axis_names_numbers_and_no_powers() -> None:
    panel = Panel("TEST", {"base": {"capitals": [0.0, 0.25, 1.0]}})
    shown = texts(draw(PointFigure("f", "grade", [panel], {"level": 0.5}, log=False)))
    assert {"grade", "capitals", "level", "0.0", "0.2", "1.0"} <= {
        s.replace("−", "-") for s in shown
    }
    assert not [text for text in shown if re.match("[0-9]e", text)]


def test_series_that_only_some_panels_have_are_in_the_legend_once() -> None:
    panels = [Panel("one", {"a": {"x": [-1.0]}}), Panel("two", {"a": {"x": [-1.0], "y": [-2.0]}})]
    shown = texts(draw(PointFigure("f", "P", panels)))
    assert shown.count("x") == shown.count("y") == 1


def test_a_cell_of_a_heat_map_without_a_value_is_left_blank() -> None:
    figure = HeatMap("f", "arm", "asked", ["a", "b"], ["q"], [[0.25], [math.nan]])
    shown = texts(draw(figure))
    assert {"25", "a", "b", "q"} <= set(shown)
    assert not [text for text in shown if "nan" in text.lower()]


# --- what every report has -------------------------------------------------------------------


def tuned(model: str, curve: Sequence[CurvePoint], cost: float | None = None) -> TunedModel:
    return TunedModel(
        model=model,
        base_model="b",
        hyperparameters={},
        n_examples=32,
        trained_tokens=12345,
        seconds=61.4,
        cost_usd=cost,
        training_curve=tuple(curve),
    )


def entry(name: str, arm: str = "", replicate: int = 1) -> ArmEntry:
    return ArmEntry(
        name=name,
        arm=arm or name,
        replicate=replicate,
        description=f"the {name}",
        training_file=None,
        validation_file=None,
        loss_on=None,
        starts_from=None,
    )


def test_training_curves_are_shown_on_a_log_scale() -> None:
    curve = [
        CurvePoint(step=1, train_loss=1.0, validation_loss=10.0),
        CurvePoint(step=2, train_loss=0.1),
        CurvePoint(step=3, train_loss=0.0, validation_loss=0.01),
    ]
    models = {"conditional": tuned("m", curve, 1.5), "control": tuned("n", curve)}
    section = training_curves([entry("base"), *map(entry, models)], models)
    trained, validated, table = section.content
    assert isinstance(trained, LineFigure)
    assert trained.lines["conditional"] == [(1, 0.0), (2, -1.0), (3, -12.0)]
    assert isinstance(validated, LineFigure)
    assert validated.lines == {arm: [(1, 1.0), (3, -2.0)] for arm in ("conditional", "control")}
    assert isinstance(table, Table)
    assert table.rows[0] == ("conditional", "32", "12,345", "61 s", "0.0000", "$1.50")
    assert table.rows[1][-1] == "nothing"


def test_training_without_validation_has_one_figure() -> None:
    models = {"control": tuned("m", [CurvePoint(step=1, train_loss=1.0)])}
    section = training_curves([entry("control")], models)
    assert [type(content) for content in section.content] == [LineFigure, Table]


def test_the_trainings_of_an_arm_look_alike_and_are_not_joined() -> None:
    models = {
        name: tuned("m", [CurvePoint(step=step, train_loss=0.1 * step) for step in (1, 2)])
        for name in ("tuned", "tuned-2", "other")
    }
    arms = [entry("tuned"), entry("tuned-2", "tuned", 2), entry("other")]
    figure, table = training_curves(arms, models).content
    assert isinstance(figure, LineFigure)
    assert list(figure.lines) == ["tuned", "other"]
    assert [step for step, _ in figure.lines["tuned"]] == pytest.approx(
        [1, 2, math.nan, 1, 2], nan_ok=True
    )
    svg = ElementTree.fromstring(draw(figure))
    paths = svg.findall(".//{*}g[@id='axes_1']/{*}g/{*}path")
    shown = [path.get("d", "") for path in paths if "stroke-width: 1.4" in path.get("style", "")]
    assert [path.count("M") for path in shown] == [2, 1]
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["tuned", "tuned-2", "other"]


def styles_of_lines(lines: dict[str, list[tuple[float, float]]]) -> list[str | None]:
    """How the lines of a figure are drawn, in their order."""
    svg = ElementTree.fromstring(draw(LineFigure("f", "step", "loss", lines)))
    paths = svg.findall(".//{*}g[@id='axes_1']/{*}g/{*}path")
    styles = [path.get("style", "") for path in paths]
    return [style for style in styles if "stroke-width: 1.4" in style]


def test_the_lines_of_eight_arms_can_be_told_apart() -> None:
    lines = {f"arm {i}": [(1.0, -i / 10), (2.0, -i / 5)] for i in range(8)}
    assert len(set(styles_of_lines(lines))) == 8


def test_an_arm_without_a_curve_leaves_the_others_their_looks() -> None:
    drawn = [(1.0, -0.5), (2.0, -1.0)]
    whole = styles_of_lines({"one": drawn, "two": drawn, "three": drawn})
    assert styles_of_lines({"one": drawn, "two": [], "three": drawn}) == [whole[0], whole[2]]


def test_a_curve_of_one_point_can_be_seen() -> None:
    assert "<use" in draw(LineFigure("f", "step", "loss", {"arm": [(1, 0.5)]})).split("line2d")[-1]


def test_what_was_run_names_arms_settings_and_files_but_no_place() -> None:
    manifest = Manifest(
        run_id="abc",
        created="2026-01-01",
        seed=0,
        git_commit=None,
        versions={"numpy": "2.0"},
        hardware={"cores": "2"},
        backend={"device": "cpu"},
        notes={"countries excluded": {"shared": 2, "small": 80}, "countries": 141},
        arms=(entry("base"), entry("tuned"), entry("hosted")),
        evaluations=(),
        sha256={"data/train-tuned.jsonl": "f00"},
    )
    models = {
        "tuned": tuned("/home/somebody/results/x/models/tuned", []),
        "hosted": tuned("ft:gpt:1", []),
    }
    frozen = {"seed": 0, "local": {"lora": {"rank": 16}, "device": "cpu"}}
    sections = what_was_run(manifest, models, frozen, manifest.sha256)
    rows = [
        tuple(row)
        for section in sections
        for content in section.content
        if isinstance(content, Table)
        for row in content.rows
    ]
    assert rows[:3] == [
        ("base", "the base", "-"),
        ("tuned", "the tuned", "models/tuned"),
        ("hosted", "the hosted", "ft:gpt:1"),
    ]
    assert {
        ("code", "not under version control"),
        ("version of numpy", "2.0"),
        ("countries excluded", "shared: 2; small: 80"),
        ("countries", "141"),
        ("local.lora.rank", "16"),
        ("data/train-tuned.jsonl", "f00"),
    } <= set(rows)
    assert not [row for row in rows if "somebody" in " ".join(row)]

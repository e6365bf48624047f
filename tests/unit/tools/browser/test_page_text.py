"""HTML as text with numbered links, in the forms that GPT-OSS was trained to read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml.html import builder

from gptoss_bento.tools.browser.page_text import PageText, article_of, page_text, parsed

URL = "https://example.com/dir/page"


def read(html: str, most_chars: int = 100_000) -> PageText:
    return page_text(parsed(html), URL, most_chars)


def test_page_text_has_headings_paragraphs_and_lists() -> None:
    page = read("<title> A  page </title><h2>Head</h2><p>One\n two.<p>Three.<ul><li>a<li>b<ul><li>c</ul></ul>end")

    assert page.title == "A page"
    assert page.text == "## Head\n\nOne two.\n\nThree.\n\n  * a\n  * b\n    * c\n\nend"


def test_page_text_has_numbers_of_lists_code_and_rules() -> None:
    page = read("<ol><li>a<ul><li>b</ul><li>c</ol><p>x <code>y = 1</code>, z<hr><pre><code>q\n r</code></pre>")

    assert page.text == "  1. a\n    * b\n  2. c\n\nx `y = 1`, z\n\n* * *\n\nq\n r"


def test_page_text_numbers_links_once_and_names_other_sites() -> None:
    page = read(
        "<a href='/x'>in</a> <a href='https://o.org/y?z#f'>out</a> <a href='../x'>again</a> <a href='#top'>top</a>"
    )

    assert page.text == "【0†in】 【1†out†o.org】 【0†again】 top"
    assert page.links == ["https://example.com/x", "https://o.org/y?z#f"]


def test_page_text_resolves_links_against_its_base() -> None:
    assert read("<base href='https://b.org/d/'><a href='x'>y</a>").links == ["https://b.org/d/x"]


@pytest.mark.parametrize("href", ["javascript:x()", "mailto:a@b.c", "data:text/html,x", "http://[", "", "x" * 3000])
def test_page_text_shows_a_link_that_cannot_be_opened_as_text(href: str) -> None:
    page = read(f"<p><a href='{href}'>words</a>")

    assert (page.text, page.links) == ("words", [])


def test_page_text_leaves_out_what_a_reader_does_not_see() -> None:
    page = read(
        "<style>a{}</style><script>x()</script><p hidden>h</p><p style='color:red; DISPLAY : none'>n</p>"
        "<template>t</template><noscript>j</noscript><!-- c -->seen<?pi x?>, too<svg><text>s</text></svg>."
    )

    assert page.text == "seen, too."


def test_page_text_cannot_forge_marks() -> None:
    page = read("<p>【9†L1】 <a href='/x'>a†b】</a>")

    assert page.text == "〖9†L1〗 【0†a‡b〗】"


def test_page_text_keeps_lines_of_preformatted_text_and_cells_of_tables() -> None:
    page = read("<pre>a\n  b</pre><table><tr><th>k<th>v<tr><td>1<td>2</table>x<sup>2</sup><br>y<img alt='a dog'><img>")

    assert page.text == "a\n  b\n\nk | v\n1 | 2\n\nx^{2}\ny[Image: a dog]"


def test_page_text_ends_where_it_is_long_enough() -> None:
    assert len(read("<p>word" * 10_000, most_chars=1000).text) < 2000


def test_page_text_reads_elements_that_are_two_thousand_deep() -> None:
    assert "deep" in read("<div>" * 2000 + "deep" + "</div>" * 2000).text


def test_page_text_shows_a_link_within_a_link_as_text() -> None:
    inner = builder.B(builder.A("in", href="/y"))
    page = page_text(builder.BODY(builder.A("out ", inner, " end", href="/x")), URL, 1000)

    assert (page.text, page.links) == ("【0†out in end】", ["https://example.com/x"])


TAGS = [
    "<a href='/x'>",
    "<a href=//[>",
    "</a>",
    "<p>",
    "</p>",
    "<ul>",
    "<ol>",
    "<li>",
    "</ul>",
    "<pre>",
    "</pre>",
    "<td>",
]
PIECES = [
    *TAGS,
    "<sup>",
    "<br>",
    "<!--",
    "-->",
    "<script>",
    "</script>",
    "<svg>",
    "</svg>",
    "<p hidden>",
    "<",
    "&#0;",
    "\x00",
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(alphabet="ab 【】†\n\ud800", max_size=5)), max_size=30))
def test_page_text_of_any_html_has_marks_of_its_links_alone(pieces: list[str]) -> None:
    page = read("<p>x" + "".join(pieces))

    marks = re.findall(r"【(.*?)†", page.text)
    assert page.text.count("【") == page.text.count("】") == len(marks)
    assert {int(mark) for mark in marks} == set(range(len(page.links)))


def test_page_text_of_an_article_replaces_the_page_where_it_is_most_of_it() -> None:
    article = "<p>" + "A sentence of the article. " * 50
    whole = read(f"<title>t</title><nav>menu</nav>{article}")

    assert article_of("", lambda _: f"<div>{article}</div>", whole, URL, 10_000) is not None
    assert article_of("", lambda _: "<p>menu</p>", whole, URL, 10_000) is None

from leaderboard.show.escape import escape_latex, escape_markdown


def test_escape_latex():
    assert escape_latex(r"a_b & 100% {x} \y #1 $ ^ ~") == (
        r"a\_b \& 100\% \{x\} \textbackslash{}y \#1 \$ \textasciicircum{} \textasciitilde{}"
    )
    assert escape_latex("é") == "é"
    assert escape_latex("Б") == r"\textbackslash{}u0411"
    assert escape_latex('a--b "c"') == "a-{}-b ''c''"
    assert escape_latex("<|>") == r"\textless{}\textbar{}\textgreater{}"


def test_escape_markdown():
    assert escape_markdown("base_ls960 _x_ |") == r"base_ls960 \_x\_ \|"
    assert escape_markdown("[red]*<b>&") == r"\[red\]\*&lt;b&gt;&amp;"
    assert escape_markdown("a\nb") == r"a\\nb"
    assert escape_markdown("$x$") == r"\$x\$"
    # At the start of a line these would begin a heading or a list; a number does not.
    assert [escape_markdown(text) for text in ("# a", "- a", "+0.5")] == [r"\# a", r"\- a", "+0.5"]

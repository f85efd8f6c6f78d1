import json

from leaderboard.show.report.markup import Html, element, embedded_json


def test_text_is_escaped_and_markup_is_not():
    assert element("p", "a<b", Html("<b>x</b>")) == "<p>a&lt;b<b>x</b></p>"
    assert element("a", data_x='"<>', class_="k", hidden=False, open=True) == (
        '<a data-x="&quot;&lt;&gt;" class="k" open></a>'
    )
    data = embedded_json({"name": "</script><!--&"})
    assert not set("<>&") & set(data)
    assert json.loads(data) == {"name": "</script><!--&"}

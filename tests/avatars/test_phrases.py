"""The file of words, read as it says of itself."""

from imagebart.avatars import attributes as phrases
from imagebart.avatars.attributes import HAIR_TOPS, HAT_TOPS, VALUES, Phrase


def test_values_are_named_or_those_that_are_not() -> None:
    colours = phrases.phrases("colours")
    assert colours["top"][0] == Phrase("top", frozenset(HAIR_TOPS) - {"bald"}, "noun", "{c} hair")
    assert colours["facial_hair"][0].values == frozenset(VALUES["facial_hair"]) - {"none"}
    assert phrases.phrases("negations")["top"][0].values == frozenset(VALUES["top"]) - frozenset(HAT_TOPS)


def test_signs_say_how_a_phrase_stands() -> None:
    hair = phrases.phrases("colours")["hair_colour"]
    said = {phrase.text: phrase.kind for phrase in [*hair, *phrases.phrases("wordings")["skin"]]}
    assert (said["ginger"], said["blondie"], said["white"], said["fair skin"]) == (
        *("adjective", "loose", "epithet", "noun"),
    )


def test_each_background_is_named_by_its_own_word() -> None:
    found = phrases.phrases("wordings")["background"]
    assert {phrase.values for phrase in found} == {frozenset({value}) for value in VALUES["background"]}
    for phrase in found:
        (value,) = phrase.values
        assert value in phrase.text.split()


def test_prints_are_of_all_shirts() -> None:
    skulls = [p.text for p in phrases.phrases("wordings")["graphic"] if p.values == {"skull"}]
    assert "a {c} shirt with a skull" in skulls and "a skull print" in skulls and "a {c} skeleton shirt" in skulls
    assert len(skulls) == 15


def test_what_is_not_there_is_said_as_its_value_is() -> None:
    bare = [p for p in phrases.phrases("wordings")["facial_hair"] if p.values == {"none"}]
    assert phrases.phrases("negations")["facial_hair"] == bare


def test_nothing_of_the_file_is_left_in_the_phrases() -> None:
    for kind in ("wordings", "colours", "negations"):
        for table in phrases.phrases(kind).values():
            for phrase in table:
                left = phrase.text.replace("{c}", "red")
                assert left and left == left.strip() and not set(left) & set("{}*$;=+~\n"), phrase
                assert phrase.values and phrase.values <= set(VALUES[phrase.attribute])

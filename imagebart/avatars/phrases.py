"""The words for every value: what captions are made of, and what the page suggests.

A table maps values (several divided by `|`: the phrase is true of each of them) to phrases divided by `;`.
`{c}` is where a colour goes. A phrase that starts with `=` goes before a noun or stands alone ("bald"), one
that starts with `~` stands alone only ("eyes closed", "without a hat"), any other is a noun that follows
"with". A phrase written twice is said twice as often.
"""

from __future__ import annotations

from dataclasses import dataclass

from imagebart.avatars.attributes import HAIR_TOPS, VALUES


@dataclass(frozen=True)
class Phrase:
    """Words that are true of avatars whose `attribute` has one of `values`; kind: noun, adjective, loose."""

    attribute: str
    values: frozenset[str]
    kind: str
    text: str

    @property
    def coloured(self) -> bool:
        """Whether the phrase has a place for a colour."""
        return "{c}" in self.text


Tables = dict[str, list[Phrase]]


def _read(table: dict[str, dict[str, str]]) -> Tables:
    """Read a table as the module describes it: the phrases of each attribute."""
    kinds = {"=": "adjective", "~": "loose"}
    return {
        attribute: [
            Phrase(attribute, frozenset(values.split("|")), kinds.get(wording[0], "noun"), wording.lstrip("=~"))
            for values, wordings in row.items()
            for wording in wordings.split("; ")
        ]
        for attribute, row in table.items()
    }


_ANY_HAIR = "|".join(HAIR_TOPS)
HAIR = frozenset(HAIR_TOPS) - {"bald"}
"""The tops whose hair shows its colour."""
_HAIR = "|".join(HAIR)
_HAIRY_FACE = "|".join(value for value in VALUES["facial_hair"] if value != "none")

_WORDINGS: dict[str, dict[str, str]] = {
    "top": {
        "bald": "a bald head; =bald; =bald; no hair; ~without hair",
        "buzz": "a {c} buzz cut; very short {c} hair; cropped {c} hair",
        "short": "short {c} hair; {c} short hair; a short {c} haircut; =short-haired",
        "quiff": "a {c} quiff; swept back {c} hair",
        "spiky": "spiky {c} hair; {c} spiky hair; messy {c} hair; wild {c} hair",
        "curly": "curly {c} hair; {c} curly hair; {c} curls; =curly-haired",
        "afro": "a {c} afro; a big {c} afro; a round {c} afro",
        "bun": "a {c} bun; {c} hair in a bun; {c} hair tied up; a {c} topknot",
        "bob": "a {c} bob; a {c} bob haircut; chin length {c} hair",
        "straight": "long straight {c} hair; {c} straight hair; straight {c} hair",
        "wavy": "long wavy {c} hair; wavy {c} hair; big wavy {c} hair",
        "straight|wavy": "long {c} hair; {c} long hair; =long-haired",
        "dreadlocks": "{c} dreadlocks; {c} dreads",
        "flowers": "{c} hair with flowers; flowers in the {c} hair; a flower crown",
        "hat": "a {c} sun hat; a wide {c} hat; a big {c} hat",
        "hat|beanie|earflaps": "a {c} hat; a {c} hat",
        "beanie": "a {c} beanie; a {c} bobble hat; a {c} woolly hat; a {c} knit cap",
        "beanie|earflaps": "a {c} winter hat",
        "earflaps": "a {c} hat with ear flaps; a {c} trapper hat; a {c} ear flap hat",
        "turban": "a {c} turban",
        "hijab": "a {c} hijab; a {c} headscarf; a {c} head scarf",
    },
    "facial_hair": {
        "none": "no beard; ~without a beard; =clean-shaven; =clean-shaven; no facial hair; "
        "~without facial hair; no moustache; no mustache; ~remove the beard",
        "goatee": "a {c} goatee; a {c} goatee; a thin {c} beard; a trimmed {c} beard",
        "beard": "a full {c} beard; a short {c} beard; a medium {c} beard",
        "long beard": "a long {c} beard; a big {c} beard; a huge {c} beard; a bushy {c} beard",
        "beard|long beard": "a {c} beard; a {c} beard; =bearded",
        "moustache": "a thick {c} moustache; a small {c} mustache",
        "moustache|curled moustache": "a {c} moustache; a {c} mustache; =mustached",
        "curled moustache": "a curled {c} moustache; a handlebar {c} mustache; a fancy {c} mustache; "
        "a curly {c} moustache",
    },
    "accessory": {
        "none|eyepatch": "no glasses; ~without glasses; ~remove the glasses; ~take off the glasses",
        "none": "no glasses; no sunglasses; ~without sunglasses",
        "glasses": "square glasses; black glasses",
        "glasses|round glasses": "glasses; glasses; spectacles; eyeglasses; a pair of glasses",
        "round glasses": "round glasses; round glasses; round spectacles; thin round glasses",
        "sunglasses|white sunglasses": "sunglasses; sunglasses; shades; dark glasses; a pair of sunglasses",
        "sunglasses": "black sunglasses; black shades",
        "white sunglasses": "white sunglasses; white shades; white framed sunglasses",
        "eyepatch": "an eyepatch; an eye patch; a pirate patch; a patch over one eye",
    },
    "eyes": {
        "open": "open eyes; normal eyes; plain eyes; ~eyes open",
        "closed": "closed eyes; ~eyes closed; eyes shut; ~sleeping; =sleepy",
        "wink": "a wink; =winking; ~winking; one eye closed",
        "hearts": "heart eyes; hearts for eyes; heart shaped eyes; ~in love",
        "wide": "wide eyes; wide open eyes; big eyes; surprised eyes; =surprised",
        "rolling": "rolling eyes; eyes rolled up; ~rolling the eyes",
        "dizzy": "dizzy eyes; x eyes; crossed out eyes; =dizzy",
        "crying": "a tear; =crying; ~crying; teary eyes; a tear in the eye; tears",
    },
    "eyebrows": {
        "normal": "normal eyebrows; plain eyebrows",
        "angry": "angry eyebrows; angry brows; =angry; =mad",
        "sad": "sad eyebrows; worried eyebrows; worried brows; =worried",
        "raised": "raised eyebrows; raised brows; high eyebrows; eyebrows up",
        "one raised": "one raised eyebrow; one eyebrow up; a raised eyebrow; =skeptical",
        "unibrow": "a unibrow; a monobrow; joined eyebrows",
    },
    "mouth": {
        "smile": "a big smile; an open smile; =laughing; ~laughing; a grin; =grinning; a happy smile",
        "smile|slight smile": "a smile; =smiling; ~smiling; =happy",
        "slight smile": "a slight smile; a small smile; a little smile; a closed smile",
        "serious": "a serious mouth; a straight mouth; =serious; a straight face; =neutral; a flat mouth",
        "sad": "a sad mouth; =sad; a frown; =frowning; =unhappy",
        "tongue": "tongue out; a tongue sticking out; ~sticking out the tongue; the tongue out",
        "grimace": "a grimace; gritted teeth; clenched teeth",
        "scream": "a screaming mouth; =screaming; ~shouting; =yelling; a scream",
        "vomit": "a vomiting mouth; =vomiting; ~throwing up; =sick; green vomit",
    },
    "clothing": {
        "hoodie": "a {c} hoodie; a {c} hoodie; a {c} hooded sweatshirt; a {c} sweatshirt",
        "t-shirt": "a {c} t-shirt; a {c} tee; a plain {c} t-shirt; a plain {c} shirt",
        "v-neck": "a {c} v-neck; a {c} v-neck shirt; a {c} v neck t-shirt",
        "graphic": "a {c} graphic tee; a {c} printed shirt; a {c} shirt with a print; a {c} t-shirt with a picture",
        "sweater": "a {c} sweater; a {c} jumper; a {c} pullover",
        "blazer": "a blazer over a {c} shirt; a jacket over a {c} shirt; a suit jacket and a {c} shirt; "
        "a blazer; a jacket; a suit",
        "overalls": "{c} overalls; {c} overalls; {c} dungarees",
    },
    "graphic": {
        "bat": "a {c} shirt with a bat; a {c} bat shirt; a {c} t-shirt with a bat print",
        "bear": "a {c} shirt with a bear; a {c} bear shirt; a {c} t-shirt with a bear print",
        "deer": "a {c} shirt with a deer; a {c} deer shirt; a {c} t-shirt with a deer print",
        "diamond": "a {c} shirt with a diamond; a {c} diamond shirt; a {c} t-shirt with a diamond print",
        "pizza": "a {c} shirt with a pizza; a {c} pizza shirt; a {c} t-shirt with a pizza slice",
        "skull": "a {c} shirt with a skull; a {c} skull shirt; a {c} t-shirt with a skull print",
    },
    "skin": {
        "fair": "fair skin; light skin; pale skin; =pale; =light-skinned",
        "tan": "tan skin; tanned skin; olive skin; =tanned",
        "brown": "brown skin; =brown-skinned",
        "dark": "dark skin; =dark-skinned; very dark skin",
        "yellow": "yellow skin; a yellow face; =yellow-skinned",
    },
    "background": {
        value: f"a {value} background; ~on a {value} background; ~on {value}; ~{value} background; "
        f"~in front of a {value} wall; ~against a {value} background"
        for value in VALUES["background"]
    },
}

WORDINGS = _read(_WORDINGS)
"""How to name a value: the phrases of each attribute."""

COLOUR_ALONE = _read({
    "top": {
        _HAIR: "{c} hair; {c} hair; {c} hair; ={c}-haired; ~make the hair {c}",
        "curly": "hair curly and {c}",
        "short": "hair short and {c}",
        "straight|wavy": "hair long and {c}",
        "hat|beanie|earflaps": "a {c} hat",
    },
    "facial_hair": {
        _HAIRY_FACE: "{c} facial hair",
        "beard|long beard": "a {c} beard",
        "moustache|curled moustache": "a {c} moustache",
    },
    "clothing": {
        "hoodie|t-shirt|v-neck|graphic|sweater|overalls": "{c} clothes; ~dressed in {c}; ~in {c}; "
        "{c} clothing",
        "t-shirt|v-neck|graphic|blazer": "a {c} shirt",
        "hoodie|t-shirt|v-neck|graphic|sweater": "a {c} top",
    },
    "hair_colour": {"red": "=ginger; =redhead; =red-headed", "blonde": "=blonde; =blond", "brown": "=brunette"},
})  # fmt: skip
"""How to name a colour with as little as possible of what has it."""

NEGATIONS = _read({
    "top": {_ANY_HAIR: "no hat; ~without a hat; ~take off the hat; ~remove the hat"},
    "facial_hair": {"none": _WORDINGS["facial_hair"]["none"]},
    "accessory": {
        "none|eyepatch": _WORDINGS["accessory"]["none|eyepatch"],
        "none|eyepatch|glasses|round glasses": "no sunglasses; ~without sunglasses",
    },
    "mouth": {"serious|sad|tongue|grimace|scream|vomit": "no smile; ~not smiling"},
})  # fmt: skip
"""What can be said of an attribute by what it is not."""

COLOUR_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "hair": {
        "black": ("black", "black", "dark"),
        "blonde": ("blonde", "blonde", "blond"),
        "red": ("red", "red", "ginger", "orange"),
        "grey": ("grey", "gray", "silver"),
    },
    "fabric": {"grey": ("grey", "gray")},
}
"""Colour words where they are not simply the colour's name."""

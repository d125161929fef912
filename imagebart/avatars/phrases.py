"""The words for every value: what captions are made of, and what the page suggests.

A table maps values (several divided by `|`: the phrase is true of each of them) to phrases divided by `;`.
`{c}` is where a colour goes. A phrase that starts with `=` goes before a noun or stands alone ("bald"), one
that starts with `+` goes before a person only ("white"), one that starts with `~` stands alone only ("eyes
closed", "without a hat"), any other is a noun that follows "with". A phrase written twice is said twice as
often.
"""

from __future__ import annotations

from dataclasses import dataclass

from imagebart.avatars.attributes import HAIR_TOPS, VALUES


@dataclass(frozen=True)
class Phrase:
    """Words that are true of avatars whose `attribute` has one of `values`; kind: noun, adjective, epithet, loose."""

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
    kinds = {"=": "adjective", "+": "epithet", "~": "loose"}
    return {
        attribute: [
            Phrase(attribute, frozenset(values.split("|")), kinds.get(wording[0], "noun"), wording.lstrip("=+~"))
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


def _printed(thing: str) -> str:
    """What can be said of a shirt with a picture."""
    shirt, tee, top = (f"a {{c}} {name}" for name in ("shirt", "t-shirt", "t shirt"))
    return (
        f"{shirt} with a {thing}; a {{c}} {thing} shirt; {tee} with a {thing} print; a {{c}} {thing} t-shirt; "
        f"{shirt} with a {thing} on it; a {{c}} {thing} tee; {top} with a {thing}; a {{c}} {thing} t shirt; "
        f"a {{c}} {thing} tshirt; {tee} with {thing}; a {thing} on the shirt; a {thing} print; "
        f"a {{c}} tshirt with a {thing}"
    )


_WORDINGS: dict[str, dict[str, str]] = {
    "top": {
        "bald": "a bald head; =bald; =bald; =bald; no hair; ~without hair; =balding; =hairless; ~baldy",
        "bald|buzz": "a shaved head; =shaven-headed",
        "buzz": "a {c} buzz cut; very short {c} hair; cropped {c} hair; a {c} buzzcut; a {c} crew cut; "
        "a {c} military cut",
        "short": "short {c} hair; {c} short hair; a short {c} haircut; =short-haired; a {c} pixie cut; "
        "a short {c} hairstyle",
        "quiff": "a {c} quiff; swept back {c} hair; a {c} pompadour; slicked back {c} hair; combed back {c} hair",
        "spiky": "spiky {c} hair; {c} spiky hair; messy {c} hair; wild {c} hair; spiked {c} hair; {c} spikes; "
        "untidy {c} hair; unkempt {c} hair; shaggy {c} hair; =punk; ~punk; {c} punk hair",
        "curly": "curly {c} hair; {c} curly hair; {c} curls; =curly-haired; {c} ringlets; a {c} perm; tight {c} curls",
        "curly|afro": "frizzy {c} hair; {c} frizzy hair; kinky {c} hair; fuzzy {c} hair; bushy {c} hair; "
        "=frizzy-haired",
        "afro": "a {c} afro; a big {c} afro; a round {c} afro; a {c} afro hairstyle; a {c} fro; =afro-haired",
        "bun": "a {c} bun; {c} hair in a bun; {c} hair tied up; a {c} topknot; a {c} man bun; a {c} top knot; "
        "a {c} hair bun; {c} hair put up; {c} hair tied back",
        "bob": "a {c} bob; a {c} bob haircut; chin length {c} hair; a {c} bob cut; a {c} bob hairstyle; "
        "chin-length {c} hair; {c} hair in a bob",
        "bob|straight|wavy": "shoulder length {c} hair; shoulder-length {c} hair; medium length {c} hair",
        "straight": "long straight {c} hair; {c} straight hair; straight {c} hair; sleek {c} hair",
        "wavy": "long wavy {c} hair; wavy {c} hair; big wavy {c} hair; {c} waves; {c} wavy hair",
        "straight|wavy": "long {c} hair; {c} long hair; =long-haired; flowing {c} hair; long {c} locks; "
        "very long {c} hair",
        "dreadlocks": "{c} dreadlocks; {c} dreads; {c} locs; {c} rasta hair; =rasta; ~rasta; rasta dreads",
        "flowers": "{c} hair with flowers; flowers in the {c} hair; a flower crown; a crown of flowers; "
        "a floral crown; a flower wreath; a flower headband; =hippie",
        "hat": "a {c} sun hat; a wide {c} hat; a big {c} hat; a {c} fedora; a {c} summer hat; a {c} brimmed hat; "
        "a {c} straw hat; a {c} sunhat",
        "hat|beanie|earflaps": "a {c} hat; a {c} hat; a {c} hat; a {c} cap; {c} headwear",
        "beanie": "a {c} beanie; a {c} beanie; a {c} bobble hat; a {c} woolly hat; a {c} knit cap; a {c} wool hat; "
        "a {c} wooly hat; a {c} knitted hat; a {c} knit hat; a {c} ski hat; a {c} pom pom hat",
        "beanie|earflaps": "a {c} winter hat; a warm {c} hat",
        "earflaps": "a {c} hat with ear flaps; a {c} trapper hat; a {c} ear flap hat; a {c} ushanka; a {c} fur hat; "
        "a {c} hat with earflaps; a {c} russian hat",
        "turban": "a {c} turban; a {c} turban; a {c} head wrap; =turbaned",
        "hijab": "a {c} hijab; a {c} headscarf; a {c} head scarf; a {c} veil; a {c} head covering; =veiled; =hijabi",
    },
    "facial_hair": {
        "none": "no beard; ~without a beard; =clean-shaven; =clean-shaven; no facial hair; ~without facial hair; "
        "no moustache; no mustache; ~remove the beard; =clean shaved; =beardless; a smooth face; ~shave the beard; "
        "~without a moustache; ~remove the moustache; ~shaved; ~shave off the beard; a bare chin; ~beard off",
        "goatee": "a {c} goatee; a {c} goatee; a thin {c} beard; a trimmed {c} beard; a {c} chin beard; "
        "a {c} goatee beard",
        "goatee|beard": "{c} stubble; =stubbly; =unshaven; a {c} five o'clock shadow; a stubbly {c} beard",
        "beard": "a full {c} beard; a short {c} beard; a medium {c} beard",
        "long beard": "a long {c} beard; a big {c} beard; a huge {c} beard; a bushy {c} beard; a very long {c} beard; "
        "a {c} wizard beard; a massive {c} beard",
        "beard|long beard": "a {c} beard; a {c} beard; a {c} beard; =bearded; a thick {c} beard",
        "moustache": "a thick {c} moustache; a small {c} mustache; a thick {c} mustache; a bushy {c} moustache",
        "moustache|curled moustache": "a {c} moustache; a {c} mustache; =mustached; a {c} moustache; =moustached; "
        "a {c} tash; a {c} tache; a {c} stache",
        "curled moustache": "a curled {c} moustache; a handlebar {c} mustache; a fancy {c} mustache; "
        "a curly {c} moustache; a {c} handlebar moustache; a twirly {c} moustache; a hipster {c} moustache",
    },
    "accessory": {
        "none|eyepatch": "no glasses; ~without glasses; ~remove the glasses; ~take off the glasses; no specs; "
        "~without specs; no spectacles; ~without spectacles; ~remove glasses; ~take off his glasses; "
        "~take her glasses off; ~not wearing glasses; ~glasses off",
        "none": "no glasses; no sunglasses; ~without sunglasses; ~take off the sunglasses; no shades",
        "glasses": "square glasses; black glasses; rectangular glasses; square specs; square spectacles; "
        "square framed glasses",
        "glasses|round glasses": "glasses; glasses; glasses; spectacles; eyeglasses; a pair of glasses; specs; specs; "
        "eye glasses; reading glasses; a pair of specs; =bespectacled; ~glasses on",
        "round glasses": "round glasses; round glasses; round glasses; round spectacles; thin round glasses; "
        "round specs; circular glasses; round eyeglasses; round framed glasses; glasses that are round",
        "sunglasses|white sunglasses": "sunglasses; sunglasses; shades; dark glasses; a pair of sunglasses; "
        "sun glasses; "
        "sunnies; aviators; aviator sunglasses; dark shades; tinted glasses; dark sunglasses; ~sunglasses on; "
        "cool shades",
        "sunglasses": "black sunglasses; black shades",
        "white sunglasses": "white sunglasses; white shades; white framed sunglasses; white sun glasses",
        "eyepatch": "an eyepatch; an eye patch; a pirate patch; a patch over one eye; an eye-patch; ~pirate; =pirate; "
        "a pirate eyepatch; a patch on one eye; one eye covered; a black eyepatch",
    },
    "eyes": {
        "open": "open eyes; normal eyes; plain eyes; ~eyes open; =awake; ~open the eyes; opened eyes",
        "open|closed|wink|hearts|wide|rolling|dizzy": "~not crying; ~stop crying",
        "closed": "closed eyes; ~eyes closed; eyes shut; ~sleeping; =sleepy; =asleep; ~asleep; shut eyes; "
        "~close the eyes; ~napping; =dozing; ~shut the eyes",
        "wink": "a wink; =winking; ~winking; one eye closed; one eye shut; a winking eye; ~winks",
        "hearts": "heart eyes; hearts for eyes; heart shaped eyes; ~in love; love eyes; =lovestruck; =smitten; "
        "love hearts for eyes; heart-shaped eyes; loving eyes; =adoring",
        "wide": "wide eyes; wide open eyes; big eyes; surprised eyes; =surprised; =shocked; ~shocked; =amazed; "
        "=astonished; =startled; shocked eyes; huge eyes; large eyes; =wide-eyed; staring eyes; =stunned",
        "rolling": "rolling eyes; eyes rolled up; ~rolling the eyes; ~rolling eyes; an eye roll; ~eye roll; "
        "~rolling her eyes; ~rolling his eyes; eyes looking up; ~looking up; =bored",
        "dizzy": "dizzy eyes; x eyes; crossed out eyes; =dizzy; =dazed; =cross-eyed; =cross eyed; crosses for eyes; "
        "crossed eyes; dead eyes; =dead; =drunk; ~knocked out; =unconscious",
        "crying": "a tear; =crying; ~crying; teary eyes; a tear in the eye; tears; =tearful; ~weeping; =weeping; "
        "=sobbing; ~in tears; =teary-eyed; watery eyes; tears in the eyes",
    },
    "eyebrows": {
        "normal": "normal eyebrows; plain eyebrows; natural eyebrows; regular eyebrows; relaxed eyebrows",
        "angry": "angry eyebrows; angry brows; =angry; =mad; =angry; =furious; =annoyed; =cross; =grumpy; ~angry; "
        "an angry face; an angry look; an angry expression; =irritated; =fierce; =enraged; =evil; lowered eyebrows",
        "sad": "sad eyebrows; worried eyebrows; worried brows; =worried; =anxious; =concerned; =nervous; =scared; "
        "=afraid; a worried face; a worried look",
        "raised": "raised eyebrows; raised brows; high eyebrows; eyebrows up; eyebrows raised; ~eyebrows raised; "
        "arched eyebrows; arched brows; lifted eyebrows; ~raising the eyebrows",
        "one raised": "one raised eyebrow; one eyebrow up; a raised eyebrow; =skeptical; one eyebrow raised; "
        "~one eyebrow raised; =sceptical; =doubtful; =suspicious; ~raising an eyebrow; =puzzled; =confused",
        "unibrow": "a unibrow; a monobrow; joined eyebrows; a mono brow; a single eyebrow; one long eyebrow; "
        "connected eyebrows",
    },
    "mouth": {
        "smile": "a big smile; an open smile; =laughing; ~laughing; a grin; =grinning; a happy smile; a wide smile; "
        "a broad smile; a toothy smile; =beaming; a wide grin; ~laugh; a laugh; a big grin; =overjoyed",
        "smile|slight smile": "a smile; =smiling; ~smiling; =happy; =cheerful; =cheery; =glad; ~smile; a happy face; "
        "a friendly smile; =friendly; a smiley face; =joyful; =pleased; ~happy; a happy expression",
        "slight smile": "a slight smile; a small smile; a little smile; a closed smile; a smirk; =smirking; "
        "a faint smile; a gentle smile; a soft smile; a half smile; =content",
        "serious": "a serious mouth; a straight mouth; =serious; a straight face; =neutral; a flat mouth; =stern; "
        "a poker face; a blank face; =expressionless; a neutral expression; a neutral face; a serious face; "
        "a serious look; a serious expression; =solemn; =unsmiling",
        "sad": "a sad mouth; =sad; a frown; =frowning; =unhappy; =sad; a sad face; a sad look; =gloomy; =miserable; "
        "=depressed; =upset; an unhappy face; ~frowning; a sad expression; =glum; a downturned mouth",
        "tongue": "tongue out; a tongue sticking out; ~sticking out the tongue; the tongue out; ~tongue out; "
        "~tongue sticking out; ~sticking her tongue out; ~sticking his tongue out; ~sticking tongue out; "
        "a silly face; =silly; =cheeky; ~poking out the tongue; =goofy",
        "grimace": "a grimace; gritted teeth; clenched teeth; =grimacing; bared teeth; ~gritting teeth; ~grimacing; "
        "~clenching the teeth; =tense; =awkward",
        "scream": "a screaming mouth; =screaming; ~shouting; =yelling; a scream; ~screaming; =shouting; an open mouth; "
        "~mouth open; ~mouth wide open; =terrified; a screaming face; =horrified",
        "vomit": "a vomiting mouth; =vomiting; ~throwing up; =sick; green vomit; =puking; ~puking; =nauseous; "
        "~being sick; =queasy; a puking mouth; ~barfing; ~puke",
    },
    "clothing": {
        "hoodie": "a {c} hoodie; a {c} hoodie; a {c} hooded sweatshirt; a {c} sweatshirt; a {c} hoody; "
        "a {c} hooded top",
        "t-shirt": "a {c} t-shirt; a {c} tee; a plain {c} t-shirt; a plain {c} shirt; a {c} t-shirt; a {c} tshirt; "
        "a {c} t shirt; a {c} tee shirt; a {c} crew neck; a plain {c} tee",
        "v-neck": "a {c} v-neck; a {c} v-neck shirt; a {c} v neck t-shirt; a {c} v-neck; a {c} v neck; a {c} vneck; "
        "a {c} v neck shirt; a {c} v-neck t-shirt; a {c} v neck top; a {c} shirt with a v-neck; a {c} v-neck top",
        "graphic": "a {c} graphic tee; a {c} printed shirt; a {c} shirt with a print; a {c} t-shirt with a picture; "
        "a {c} graphic t-shirt; a {c} printed t-shirt; a {c} shirt with a picture; a {c} shirt with a logo; "
        "a {c} t shirt with a print",
        "sweater": "a {c} sweater; a {c} jumper; a {c} pullover; a {c} sweater; a {c} knitted sweater; "
        "a {c} wool sweater; "
        "a {c} woolly jumper; a collar and a {c} sweater",
        "blazer": "a blazer over a {c} shirt; a jacket over a {c} shirt; a suit jacket and a {c} shirt; "
        "a blazer; a jacket; a suit; a suit and a {c} shirt; a blazer and a {c} shirt; a business suit; =business; "
        "formal clothes; a formal suit; a coat; a dark suit; a dark jacket; a black suit; a black jacket; "
        "~businessman; "
        "a coat over a {c} shirt; formal wear",
        "overalls": "{c} overalls; {c} overalls; {c} dungarees; {c} overalls; a {c} jumpsuit; {c} coveralls; "
        "{c} bib overalls; {c} work overalls",
    },
    "graphic": {
        "bat": f"{_printed('bat')}; {_printed('batman')}",
        "bear": f"{_printed('bear')}; {_printed('teddy bear')}",
        "deer": f"{_printed('deer')}; {_printed('stag')}; a {{c}} reindeer shirt",
        "diamond": f"{_printed('diamond')}; {_printed('gem')}",
        "pizza": f"{_printed('pizza')}; a {{c}} t-shirt with a pizza slice; a {{c}} shirt with pizza",
        "skull": f"{_printed('skull')}; a {{c}} skeleton shirt; a {{c}} shirt with a skeleton",
    },
    "skin": {
        "fair": "fair skin; light skin; pale skin; =pale; =light-skinned; white skin; +white; +white; =fair-skinned; "
        "a pale face; =pale-skinned; a fair complexion; a light complexion",
        "tan": "tan skin; tanned skin; olive skin; =tanned; =tan; a tan; =suntanned; =bronzed; light brown skin; "
        "=olive-skinned",
        "brown": "brown skin; =brown-skinned; +brown; a brown face; medium brown skin; =brown skinned",
        "dark": "dark skin; =dark-skinned; very dark skin; black skin; +black; +black; =black-skinned; "
        "dark brown skin; "
        "a dark complexion; =dark skinned",
        "yellow": "yellow skin; a yellow face; =yellow-skinned; ~like the simpsons; =simpsons; an emoji face; "
        "yellow like the simpsons",
    },
    "background": {
        value: f"a {value} background; ~on a {value} background; ~on {value}; ~{value} background; "
        f"~in front of a {value} wall; ~against a {value} background; a {value} backdrop; ~on a {value} backdrop; "
        f"~{value} bg; ~{value} backdrop; ~{value} wallpaper; ~the background is {value}; ~background {value}; "
        f"~make the background {value}; ~change the background to {value}; ~{value} behind; ~{value} wall"
        for value in VALUES["background"]
    },
}

WORDINGS = _read(_WORDINGS)
"""How to name a value: the phrases of each attribute."""

COLOUR_ALONE = _read({
    "top": {
        _HAIR: "{c} hair; {c} hair; {c} hair; {c} hair; ={c}-haired; ={c} haired; ~make the hair {c}; "
        "~make her hair {c}; ~make his hair {c}; ~change the hair to {c}; hair in {c}; hair that is {c}; "
        "~the hair is {c}; hair dyed {c}; ~dye the hair {c}; {c} coloured hair",
        "curly": "hair curly and {c}",
        "short": "hair short and {c}",
        "straight|wavy": "hair long and {c}",
        "hat|beanie|earflaps": "a {c} hat; a {c} hat; ~make the hat {c}; a hat in {c}",
    },
    "facial_hair": {
        _HAIRY_FACE: "{c} facial hair; {c} facial hair; {c} whiskers",
        "beard|long beard": "a {c} beard; a {c} beard; ~make the beard {c}; ~dye the beard {c}; ~the beard is {c}",
        "moustache|curled moustache": "a {c} moustache; ~make the moustache {c}",
    },
    "clothing": {
        "hoodie|t-shirt|v-neck|graphic|sweater|overalls": "{c} clothes; ~dressed in {c}; ~in {c}; {c} clothing; "
        "a {c} outfit; ~wearing {c}; ~clothes in {c}; ~make the clothes {c}; ~change the clothes to {c}",
        "t-shirt|v-neck|graphic|blazer": "a {c} shirt; a {c} shirt; ~make the shirt {c}; a shirt in {c}",
        "hoodie|t-shirt|v-neck|graphic|sweater": "a {c} top; a {c} top; ~make the top {c}",
    },
    "hair_colour": {
        "red": "=ginger; =ginger; =redhead; =red-headed; ~ginge; =redheaded; ~redhead",
        "blonde": "=blonde; =blond; =blonde; =fair-haired; ~blondie",
        "brown": "=brunette; =brunette; ~brunette",
        "black": "=raven-haired; =dark-haired",
    },
})  # fmt: skip
"""How to name a colour with as little as possible of what has it."""

NEGATIONS = _read({
    "top": {
        _ANY_HAIR: "no hat; ~without a hat; ~take off the hat; ~remove the hat; ~take his hat off; no beanie; no cap; "
        "~not wearing a hat; ~hat off"
    },
    "facial_hair": {"none": _WORDINGS["facial_hair"]["none"]},
    "accessory": {
        "none|eyepatch": _WORDINGS["accessory"]["none|eyepatch"],
        "none|eyepatch|glasses|round glasses": "no sunglasses; ~without sunglasses; ~remove the sunglasses",
    },
    "mouth": {"serious|sad|tongue|grimace|scream|vomit": "no smile; ~not smiling; ~stop smiling; ~without a smile"},
})  # fmt: skip
"""What can be said of an attribute by what it is not."""

"""The names of ICT-FaceKit's expressions: Apple's ARKit blend shapes, with L and R for the person's left and right."""

_PAIRS_AND_SINGLES = (
    "browDown_ browInnerUp_ browOuterUp_ cheekPuff_ cheekSquint_ eyeBlink_ eyeLookDown_ eyeLookIn_ eyeLookOut_ "
    "eyeLookUp_ eyeSquint_ eyeWide_ jawForward jawLeft jawOpen jawRight mouthClose mouthDimple_ mouthFrown_ "
    "mouthFunnel mouthLeft mouthLowerDown_ mouthPress_ mouthPucker mouthRight mouthRollLower mouthRollUpper "
    "mouthShrugLower mouthShrugUpper mouthSmile_ mouthStretch_ mouthUpperUp_ noseSneer_"
)
# In the order of the modes; the list is that of ICT-FaceKit's vertex_indices.json.
EXPRESSIONS = tuple(
    name + side for name in _PAIRS_AND_SINGLES.split() for side in (("L", "R") if name.endswith("_") else ("",))
)
# Those that the landmarks of a frontal face tell: their weights in known faces, seen with the errors of a network, are
# found with a correlation of 0.6 and more (tests/dense_figures.py). The others are fitted but never given.
_SEEN = [
    "browDown",
    "browOuterUp",
    "cheekPuff",
    "eyeBlink",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimple",
    "mouthFunnel",
    "mouthLeft",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthSmile",
    "mouthStretch",
    "mouthUpperUp",
    "noseSneer",
]
SEEN_EXPRESSIONS = tuple(name for name in EXPRESSIONS if name.removesuffix("_L").removesuffix("_R") in _SEEN)

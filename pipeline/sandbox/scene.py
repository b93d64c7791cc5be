"""The picture of a sandbox clip: a landscape that sways gently, with the request's words on it.

All is drawn once as layers in the encoder's own colour space; a frame is then a handful of pastes.
"""

import colorsys
import hashlib
import io
import math
import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pipeline.sandbox.mp4 import SIZES, Planes
from pipeline.sandbox.params import shape_of

Rgb = tuple[int, int, int]
_LUMA_LIMITED: Final = [round(16 + value * 219 / 255) for value in range(256)]
_CHROMA_LIMITED: Final = [round(128 + (value - 128) * 224 / 255) for value in range(256)]


@dataclass(frozen=True, slots=True)
class _Palette:
    """Colours of one time of day; sky from the top to the horizon, hills from far to near."""

    sky: tuple[Rgb, Rgb, Rgb]
    sun: Rgb
    hills: tuple[Rgb, Rgb]
    stars: bool = False


_PALETTES: Final = (
    _Palette(((38, 52, 110), (214, 110, 128), (255, 205, 150)), (255, 236, 190), ((150, 92, 128), (28, 22, 48))),
    _Palette(((60, 130, 200), (140, 195, 230), (250, 232, 200)), (255, 250, 225), ((112, 154, 178), (22, 52, 62))),
    _Palette(((10, 14, 40), (32, 42, 92), (92, 92, 150)), (236, 240, 255), ((62, 66, 116), (8, 10, 26)), stars=True),
    _Palette(((20, 70, 92), (72, 160, 150), (244, 222, 160)), (255, 244, 200), ((70, 132, 130), (8, 38, 44))),
    _Palette(((70, 32, 92), (200, 80, 110), (255, 170, 100)), (255, 222, 150), ((136, 62, 104), (32, 12, 38))),
    _Palette(((120, 140, 170), (190, 200, 210), (246, 226, 214)), (255, 244, 232), ((150, 160, 178), (44, 52, 70))),
    _Palette(((12, 34, 60), (22, 96, 110), (150, 214, 170)), (240, 255, 236), ((38, 98, 108), (4, 22, 32)), stars=True),
)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A sprite in limited-range YCbCr, chroma at half size, with its coverage; `depth` is its sway in pixels."""

    planes: tuple[Image.Image, Image.Image, Image.Image]
    masks: tuple[Image.Image, Image.Image] | None
    x: int
    y: int
    depth: float = 0.0
    bob: float = 0.0

    @classmethod
    def of(cls, image: Image.Image, x: int, y: int, depth: float = 0.0, bob: float = 0.0) -> "_Layer":
        luma, *chroma = image.convert("RGB").convert("YCbCr").split()
        blue, red = (plane.point(_CHROMA_LIMITED).reduce(2) for plane in chroma)
        masks = None
        if image.mode == "RGBA":
            alpha = image.getchannel("A")
            masks = (alpha, alpha.reduce(2))
        return cls((luma.point(_LUMA_LIMITED), blue, red), masks, x, y, depth, bob)

    def paste(self, onto: tuple[Image.Image, ...], sway: float, lift: float) -> None:
        x, y = self.x + round(self.depth * sway), self.y + round(self.bob * lift)
        mask, half = self.masks or (None, None)
        onto[0].paste(self.planes[0], (x, y), mask)
        onto[1].paste(self.planes[1], (x // 2, y // 2), half)
        onto[2].paste(self.planes[2], (x // 2, y // 2), half)


class Scene:
    """The looping picture of one request."""

    def __init__(
        self, request_id: str, body: dict[str, Any], image: bytes | None = None, *, words: bool = True
    ) -> None:
        aspect, duration = shape_of(body)
        self.width, self.height = SIZES[aspect]
        # The land follows the prompt, the light follows the request: replicates are one place in two lights.
        land = random.Random(_number(str(body.get("prompt", ""))))
        light = random.Random(_number(request_id))
        palette = light.choice(_PALETTES)
        self._shift = light.uniform(-0.03, 0.03)
        backdrop = _opened(image, self.width, self.height)
        if backdrop is not None:
            self._layers = [_Layer.of(backdrop, -40, -24, 36.0, 10.0), *self._scrim()]
        else:
            self._layers = self._landscape(palette, land, light)
        if words:
            caption = _caption(self.width, self.height, request_id, body, aspect, duration)
            self._layers.append(_Layer.of(*caption))
        self._canvas = tuple(
            Image.new("L", size) for size in ((self.width, self.height), *[(self.width // 2, self.height // 2)] * 2)
        )

    def frames(self, count: int, hold: int = 1) -> Iterator[Planes]:
        """`count` frames of one period of the motion, each given out `hold` times."""
        for number in range(count):
            phase = 2 * math.pi * number / count
            sway, lift = math.sin(phase), math.sin(phase + 1.0) - math.sin(1.0)
            for layer in self._layers:
                layer.paste(self._canvas, sway, lift)
            luma, blue, red = (plane.tobytes() for plane in self._canvas)
            for _ in range(hold):
                yield luma, blue, red

    def _tone(self, colour: Rgb) -> Rgb:
        hue, light, saturation = colorsys.rgb_to_hls(*(part / 255 for part in colour))
        red, green, blue = colorsys.hls_to_rgb((hue + self._shift) % 1.0, light, saturation)
        return round(red * 255), round(green * 255), round(blue * 255)

    def _landscape(self, palette: _Palette, land: random.Random, light: random.Random) -> list[_Layer]:
        width, height = self.width, self.height
        sky = self._sky(palette, light)
        disc, reach = self._sun(palette)
        x = int(width * light.uniform(0.22, 0.78)) - reach
        y = int(height * light.uniform(0.20, 0.34)) - reach
        layers = [_Layer.of(sky, 0, 0), _Layer.of(disc, x, y, 4.0, 9.0)]
        for _ in range(3):
            cloud = self._cloud(palette, land)
            at = land.randint(-cloud.width // 4, width - cloud.width // 2)
            layers.append(_Layer.of(cloud, at, int(height * land.uniform(0.10, 0.42)), land.uniform(14, 26)))
        far, near = (self._tone(colour) for colour in palette.hills)
        tops = (0.47, 0.555, 0.645)
        for index, top in enumerate(tops):
            colour = _mix(far, near, index / (len(tops) - 1))
            mist = _mix(colour, self._tone(palette.sky[2]), 0.45 * (1 - index / 2))
            margin = (16, 32, 60)[index]
            y = int(height * top)
            bottom = int(height * tops[index + 1]) + 110 if index + 1 < len(tops) else height
            hill = _hill(width + 2 * margin, min(bottom, height) - y, colour, mist, land, index)
            layers.append(_Layer.of(hill, -margin, min(bottom, height) - hill.height, margin * 0.75))
        return layers

    def _sky(self, palette: _Palette, light: random.Random) -> Image.Image:
        colours = [self._tone(colour) for colour in palette.sky]
        column = Image.new("RGB", (1, self.height))
        horizon = self.height * 0.62
        for y in range(self.height):
            at = min(1.0, y / horizon)
            colour = _mix(colours[0], colours[1], at * 2) if at < 0.5 else _mix(colours[1], colours[2], at * 2 - 1)
            column.putpixel((0, y), colour)
        sky = column.resize((self.width, self.height))
        if palette.stars:
            draw = ImageDraw.Draw(sky)
            for _ in range(130):
                x, y = light.randrange(self.width), int(self.height * 0.5 * light.random() ** 1.4)
                shade = light.randint(120, 255)
                size = 1 if light.random() < 0.8 else 2
                draw.ellipse((x, y, x + size, y + size), fill=(shade, shade, min(255, shade + 10)))
        return sky

    def _sun(self, palette: _Palette) -> tuple[Image.Image, int]:
        radius = int(min(self.width, self.height) * 0.085)
        reach = radius * 4
        glow = Image.radial_gradient("L").point([round(150 * max(0.0, 1 - value / 181) ** 2.6) for value in range(256)])
        alpha = glow.resize((2 * reach, 2 * reach), Image.Resampling.BICUBIC)
        big = Image.new("L", (8 * radius, 8 * radius), 0)
        ImageDraw.Draw(big).ellipse((2 * radius, 2 * radius, 6 * radius, 6 * radius), fill=255)
        disc = big.reduce(2)
        alpha.paste(255, (reach - 2 * radius, reach - 2 * radius), disc)
        sun = Image.new("RGBA", alpha.size, (*self._tone(palette.sun), 0))
        sun.putalpha(alpha)
        return sun, reach

    def _cloud(self, palette: _Palette, land: random.Random) -> Image.Image:
        width, height = land.randint(150, 260), land.randint(14, 24)
        alpha = Image.new("L", (width + 40, height + 40), 0)
        draw = ImageDraw.Draw(alpha)
        for _ in range(12):
            across = min(0.85, max(0.15, land.gauss(0.5, 0.2)))
            half = land.uniform(18, 56) * (1.1 - 2 * abs(across - 0.5))
            x, y = 20 + across * width, 20 + height * land.uniform(0.3, 0.8)
            draw.ellipse((x - half, y - half * 0.14, x + half, y + half * 0.12), fill=land.randint(70, 130))
        alpha = alpha.filter(ImageFilter.GaussianBlur(4)).resize((alpha.width * 2, alpha.height * 2))
        cloud = Image.new("RGBA", alpha.size, (*_mix(self._tone(palette.sky[2]), (255, 255, 255), 0.45), 0))
        cloud.putalpha(alpha)
        return cloud

    def _scrim(self) -> list[_Layer]:
        shade = (
            Image.linear_gradient("L").resize((self.width, self.height // 2)).point([v * 7 // 10 for v in range(256)])
        )
        dark = Image.new("RGBA", shade.size, (6, 8, 16, 0))
        dark.putalpha(shade)
        return [_Layer.of(dark, 0, self.height - shade.height)]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _mix(one: Rgb, two: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, two, strict=True))
    return red, green, blue


def _opened(data: bytes | None, width: int, height: int) -> Image.Image | None:
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (width, height))
            picture = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None  # what was uploaded need not be a picture
    scale = max((width + 80) / picture.width, (height + 48) / picture.height)
    size = max(width + 80, round(picture.width * scale)), max(height + 48, round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width - 80) // 2, (size[1] - height - 48) // 2
    return picture.crop((left, top, left + width + 80, top + height + 48))


def _hill(width: int, height: int, colour: Rgb, mist: Rgb, land: random.Random, index: int) -> Image.Image:
    """A ridge with its slope below; the nearest ones carry firs."""
    relief = (0.42, 0.36, 0.26)[index] * height
    waves = [
        (land.uniform(0.6, 1.0) / order, order * land.uniform(0.8, 1.3), land.uniform(0, 6.3)) for order in (1, 2, 3, 5)
    ]
    roughness = sum(size for size, _, _ in waves)

    def ridge(x: float) -> float:
        swing = sum(size * math.sin(6.283 * rate * x / 900 + start) for size, rate, start in waves) / roughness
        return head + relief * (0.55 - 0.5 * swing)

    scale = 2
    head = (0, 24, 60)[index]  # room for the firs above the ridge
    height += head
    alpha = Image.new("L", (width * scale, height * scale), 0)
    draw = ImageDraw.Draw(alpha)
    line = [(x * scale, ridge(x) * scale) for x in range(0, width + 8, 8)]
    draw.polygon([(0, height * scale), *line, (width * scale, height * scale)], fill=255)
    if index > 0:
        x = 0.0
        while x < width:
            size = land.uniform(10, 20) if index == 1 else land.uniform(24, 56)
            if land.random() < 0.72:
                foot = ridge(x) + 4
                for share, half in ((0.0, 0.34), (0.28, 0.27), (0.55, 0.18)):
                    low = (foot - size * share) * scale
                    tip = (foot - size * (share + 0.5)) * scale
                    span = size * half * scale
                    draw.polygon([(x * scale - span, low), (x * scale, tip), (x * scale + span, low)], fill=255)
            x += size * land.uniform(0.35, 1.1)
    column = Image.new("RGB", (1, height))
    for y in range(height):
        share = y / height
        column.putpixel((0, y), _mix(colour, mist, share) if index < 2 else _mix(colour, (4, 5, 12), share * 0.6))
    hill = column.resize((width, height)).convert("RGBA")
    hill.putalpha(alpha.reduce(scale))
    return hill


def _face(size: int, text: str) -> tuple[Any, str]:
    """A font and the text that it can show: the built-in face knows little more than ASCII."""
    if text.isascii():
        return ImageFont.load_default(size), text
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size), text
    except OSError:  # not on this machine: show what is left without the accents
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        return ImageFont.load_default(size), plain


def _wrap(text: str, font: Any, width: float, most: int) -> list[str]:
    lines: list[str] = []
    line = ""
    words = [word[at : at + 40] for word in text[:600].split() for at in range(0, len(word), 40)]
    for word in words:
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= width or not line:
            line = longer
            continue
        lines.append(line)
        line = word
        if len(lines) == most:
            break
    else:
        lines.append(line)
        return lines
    lines[-1] = lines[-1].rstrip(" .,;:") + " …"
    return lines


def _balanced(text: str, font: Any, width: float, most: int) -> list[str]:
    """Wrapped, with no lonely word on the last line: as narrow as the number of lines allows."""
    best = _wrap(text, font, width, most)
    for share in (0.6, 0.7, 0.8, 0.9):
        lines = _wrap(text, font, width * share, most)
        if len(lines) == len(best) and not lines[-1].endswith(" …"):
            return lines
    return best


def _caption(
    width: int, height: int, request_id: str, body: dict[str, Any], aspect: str, duration: int
) -> tuple[Image.Image, int, int]:
    """The prompt and the parameters, as a sprite with its place."""
    edge = round(min(width, height) * 0.067)
    prompt = "".join(letter if letter.isprintable() else " " for letter in str(body.get("prompt", "")))
    size = 40 if len(prompt) < 90 else 32 if len(prompt) < 220 else 26
    (font, prompt), (small, _) = _face(size, prompt), _face(19, "")
    lines = _balanced(prompt, font, width - 2 * edge - 8, 5)
    facts = [f"{duration} s", aspect, f"cfg {body.get('cfg_scale', 0.5)}"]
    if body.get("start_image"):
        facts.append("from image")
    if body.get("negative_prompt"):
        facts.append("negative prompt")
    step = round(size * 1.28)
    tall = step * len(lines) + 58
    image = Image.new("RGBA", (width - 2 * edge + edge // 2, tall + tall % 2), (10, 12, 22, 0))
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        at = (2, number * step)
        draw.text((at[0] + 1, at[1] + 2), line, font=font, fill=(0, 0, 0, 150))
        draw.text(at, line, font=font, fill=(255, 255, 255, 255))
    y = step * len(lines) + 18
    x = 2.0
    for fact in facts:
        long = small.getlength(fact)
        draw.rounded_rectangle(
            (x, y, x + long + 22, y + 31), 15, fill=(255, 255, 255, 46), outline=(255, 255, 255, 110)
        )
        draw.text((x + 11, y + 4), fact, font=small, fill=(255, 255, 255, 235))
        x += long + 32
    tag = f"sandbox  {request_id[:8]}"
    draw.text((image.width - edge // 2 - small.getlength(tag), y + 4), tag, font=small, fill=(255, 255, 255, 170))
    return image, edge, height - edge - image.height + 12

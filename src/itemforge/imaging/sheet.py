"""Contact sheets: many pictures on one page, each with what was asked for written below it."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from itemforge.imaging.opening import open_png

#: Least width of a cell in pixels, so that labels stay readable under small pictures.
CELL = 192
GAP = 12
FONT_SIZE = 14
LABEL_LINES = 2
PAPER, INK, FRAME = (250, 250, 248), (40, 40, 44), (222, 222, 218)


def contact_sheet(pictures: Sequence[tuple[Image.Image | bytes, str]], columns: int = 3) -> Image.Image:
    """A page of pictures (or PNG files' bytes) with their labels, row by row.

    Small pictures are enlarged by a whole factor, so that their pixels stay sharp.

    Raises:
        ValueError: there are no pictures, or no columns.
        InvalidInput: bytes that are no PNG.
    """
    if not pictures or columns < 1:
        raise ValueError("a contact sheet needs at least one picture and one column")
    font = ImageFont.load_default(FONT_SIZE)
    images = [_enlarged(_opened(picture)) for picture, _ in pictures]
    width = max(image.width for image in images)
    height = max(image.height for image in images)
    line = FONT_SIZE + 4
    step_x, step_y = width + GAP, height + LABEL_LINES * line + 2 * GAP
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for n, (image, (_, label)) in enumerate(zip(images, pictures, strict=True)):
        x, y = GAP + n % columns * step_x, GAP + n // columns * step_y
        left, top = x + (width - image.width) // 2, y + (height - image.height) // 2
        pen.rectangle((left - 1, top - 1, left + image.width, top + image.height), outline=FRAME)
        sheet.paste(image, (left, top), image if image.mode == "RGBA" else None)
        for row, text in enumerate(_wrapped(label, font, width)):
            pen.text((x, y + height + GAP // 2 + row * line), text, fill=INK, font=font)
    return sheet


def _opened(picture: Image.Image | bytes) -> Image.Image:
    if isinstance(picture, bytes):
        return open_png(picture, "RGBA")
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _enlarged(image: Image.Image) -> Image.Image:
    factor = max(1, -(-CELL // max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _wrapped(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The label in at most `LABEL_LINES` lines of `width` pixels; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in label.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    cut = len(lines) > LABEL_LINES
    lines = lines[:LABEL_LINES]
    if cut:
        lines[-1] += " …"
    return [_shortened(line, font, width) for line in lines]


def _shortened(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1].rstrip(" …")
    return f"{line}…"

"""The words that name a style, for `style_words.py`: lists that can be read and added to, and the patterns made of them.

A blank stands for a hyphen or nothing too ("water colour" is also "watercolour"); colour and grey are read in either spelling.
"""

from __future__ import annotations

import re


def _pattern(text: str) -> str:
    """The entries of a list, separated by commas, as alternatives of a pattern, the longest first."""
    entries = sorted((" ".join(entry.split()) for entry in text.split(",")), key=len, reverse=True)
    spelt = (
        re.escape(entry).replace(r"\ ", "[ -]?").replace("colour", "colou?r").replace("grey", "gr[ae]y") for entry in entries
    )
    return f"(?:{'|'.join(spelt)})"


WORK = _pattern("""
    painting, paintings, illustration, illustrations, drawing, drawings, sketch, sketches, photo, photos, photograph,
    photographs, picture, pictures, image, images, artwork, artworks, work of art, piece of art, art, cartoon, comic,
    comic strip, comic book, manga, anime, woodcut, woodblock print, engraving, etching, lithograph, linocut, print,
    prints, render, rendering, screenshot, clip art, water colour, gouache, pastel, fresco, collage, doodle, caricature,
    scan, snapshot, depiction, graphic, vector
""")
"""What a picture can be."""

MATERIAL = _pattern("""
    oil, oils, oil paint, acrylic, acrylics, water colour, water colours, gouache, ink, inks, pen and ink, pastel,
    pastels, chalk, charcoal, crayon, crayons, pencil, pencils, coloured pencil, coloured pencils, graphite, tempera,
    black and white, monochrome, sepia, grey scale, line art, pixel art
""")
"""What it can be made in."""

MANNER = _pattern("""
    water colour, gouache, charcoal, coloured pencil, black and white, monochrome, sepia, grey scale, line art, pixel
    art
""")
"""Of these, what is hardly ever a thing in the picture."""

KIND = (
    "(?:"
    + MATERIAL
    + "|"
    + _pattern("""
    digital, colour, coloured, colourful, vintage, old, antique, retro, detailed, highly detailed, realistic, photo
    realistic, hyper realistic, surreal, surrealist, abstract, impressionist, impressionistic, expressionist,
    expressionistic, cubist, minimalist, minimalistic, stylized, stylised, whimsical, hand drawn, hand painted, painted,
    drawn, animated, anime, manga, cartoon, cartoonish, comic, comic book, 2d, 3d, low poly, vector, flat, line, pixel,
    pop, concept, fan, folk, art, art deco, art nouveau, ukiyo e, woodblock, fantasy, blurry, blurred, grainy, high
    quality, beautiful, stunning, vibrant, simple, rough, loose, delicate, close up, artistic, japanese, chinese,
    traditional, classical, modern, contemporary
""")
    + r"|\w+-(?:style|styled|inspired)|\d+\w*[ -]century)"
)
"""What may stand before either; before a thing some of these are the thing's own: an old house, a colourful dress."""

ADJECTIVE = (
    "(?:"
    + _pattern("""
    water colour, water coloured, cartoon, cartoonish, anime, manga, pixel art, low poly, stylized, stylised, animated,
    illustrated, hand drawn, hand painted, impressionist, impressionistic, expressionist, expressionistic, cubist, 3d
""")
    + r"|\w+-(?:style|styled))"
)
"""What names a style before whatever it stands."""

TAG = (
    "(?:"
    + _pattern("""
    traditional media, faux traditional media, digital media, mixed media, official style, artist name, signature,
    masterpiece, best quality, detailed, highly detailed, very detailed, intricately detailed, artstation, trending on
    artstation, 4k, 8k, hdr, oil on canvas, oil on board, acrylic on canvas, ink on paper, lineart, spot colour, limited
    palette, flat colour, unfinished, retro artstyle, artstyle, abstract, realistic, photorealistic, colourful,
    impressionism, impressionist, expressionism, surrealism, cubism, minimalism, pop art, art nouveau, art deco, ukiyo
    e, chibi, oekaki, jaggy lines, halftone, screentones, film grain, sketchy
""")
    + r"|[\w' -]+ \((?:medium|style)\)|[\w' -]*style parody)"
)
"""What stands alone between commas."""

ABOUT = _pattern("""
    style, overall style, art style, artistic style, painting style, drawing style, illustration style, visual style,
    technique, painting technique, medium, brush stroke, brush strokes, brush work, line work, aesthetic, overall
    aesthetic
""")
"""What a sentence is about that says only how the picture is made."""

"""A video and a tracker's boxes become a gallery, which is then searched by a picture.

    gloam demo --output demo                                  # a small run of drawn people, if you have none
    python examples/gallery_from_video.py demo/run OUTPUT     # needs pip install 'gloam[video]'

The video is drawn here, and so are the boxes, in MOTChallenge text: what most trackers write. With your own:

    gloam gallery create people.gallery RUN --retention 30 --thumbnails
    gloam gallery add people.gallery video.mp4 --boxes tracks.txt --start 2026-03-01T08:00:00Z --camera 3
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
from PIL import Image

import gloam
from gloam.drawing.render import Shot, draw_image

HEIGHT, WIDTH, FRAMES, PEOPLE = 240, 400, 50, 4
BOX_HEIGHT, BOX_WIDTH = 96, 48


def draw_video(video: Path, tracks: Path) -> None:
    """Four people cross the picture; each has a line per frame in the file of boxes."""
    lines = []
    with av.open(str(video), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for number in range(FRAMES):
            image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            for person in range(PEOPLE):
                left, top = 4 + 6 * number + 10 * person, 6 + 44 * person
                shot = Shot("", person, 1, False, 0, frame=number)
                image[top : top + BOX_HEIGHT, left : left + BOX_WIDTH] = draw_image(0, shot, BOX_HEIGHT, BOX_WIDTH)
                # MOTChallenge counts frames and pixels from 1.
                lines.append(f"{number + 1},{person},{left + 1},{top + 1},{BOX_WIDTH},{BOX_HEIGHT},0.9,-1,-1,-1\n")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    tracks.write_text("".join(lines))


def main() -> None:
    """Draw, add, search."""
    run, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(parents=True)
    draw_video(output / "hall.mkv", output / "tracks.txt")
    model = gloam.load_model(run)
    with gloam.Gallery.create(output / "people.gallery", model, retention=30, thumbnails=True) as gallery:
        options = {"boxes": output / "tracks.txt", "start": "2026-03-01T08:00:00Z", "camera": 1, "modality": "visible"}
        print(gallery.add(output / "hall.mkv", **options))
        print("again:", gallery.add(output / "hall.mkv", **options))
        Image.fromarray(draw_image(0, Shot("", 2, 2, False, 5), 96, 48)).save(output / "photo.png")
        hits = gallery.search(output / "photo.png", top=5, group="tracklet")
        print(hits.to_frame())
        hits.save(output / "hits.html")


if __name__ == "__main__":
    main()

"""``nullscope upload-shards``: shards where many machines read them."""

from __future__ import annotations

from pathlib import Path

import click

from nullscope.cli.shared import PATH, fail


@click.command("upload-shards")
@click.argument("place", metavar="URL")
@click.option("--shards", default="data/shards", type=PATH, show_default=True, help="Folder of the stage `shard`.")
def upload_shards(place: str, shards: Path) -> None:
    """Bring the shards to URL, such as s3://bucket/prefix, where NULLSCOPE_SHARDS=URL reads them.

    URL is anything that fsspec opens; s3:// needs `pip install 'nullscope[s3]'`. Run again, it goes on where it stopped and sends
    only what is missing or has changed; nothing is deleted. Credentials and endpoint come from AWS_PROFILE, AWS_ACCESS_KEY_ID,
    ..., FSSPEC_S3_ENDPOINT_URL.

    \b
    Example:
      nullscope upload-shards s3://bucket/prefix
      NULLSCOPE_SHARDS=s3://bucket/prefix python stages/train.py ns_net 0
    """
    from tqdm import tqdm

    from nullscope.shards.upload import total_bytes, upload

    sent = kept = size = 0
    try:
        with tqdm(total=total_bytes(shards), unit="B", unit_scale=True, desc="upload") as bar:
            for tar in upload(shards, place):
                bar.update(tar.bytes)
                sent, kept, size = sent + tar.sent, kept + (not tar.sent), size + tar.bytes * tar.sent
    except (ValueError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted: run the same command again, it goes on there")
    click.echo(f"{place}: {sent} tars sent ({size / 1e6:.1f} MB), {kept} were there; read them with NULLSCOPE_SHARDS={place}")

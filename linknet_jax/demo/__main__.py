"""A local page for trying a checkpoint: `python -m linknet_jax.demo CHECKPOINT`.

Choose or paste a photograph, draw or edit boxes, see its scene graph, move thresholds, download the
graph as JSON. Nothing leaves this machine, and uploads are deleted at the end. Stop with Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import tempfile

from linknet_jax.command import exit_status

PACKAGES = ("gradio", "gradio_image_annotation")
ALL = 10**6  # triplets
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main(argv: list[str] | None = None) -> int:
    """Serves until it is stopped; returns the exit status, 2 with a message for wrong inputs."""
    arguments = _parser().parse_args(argv)
    return exit_status(lambda: _serve(arguments))


def _serve(a: argparse.Namespace) -> None:
    check_packages()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else uploads would be left behind
    with tempfile.TemporaryDirectory(prefix="linknet-demo-") as folder:
        _keep_to_itself(folder)
        from linknet_jax.demo import page
        from linknet_jax.predictor import Predictor

        predictor = Predictor.from_checkpoint(
            a.checkpoint, a.step, least=0.0, object_least=0.0, top=ALL
        )
        if a.host not in LOOPBACK:
            print(f"warning: whoever reaches {a.host} can use this page", file=sys.stderr)
        blocks = page.build(predictor)
        try:
            _, url, _ = blocks.launch(**launch_options(a.host, a.port))
        except OSError as error:
            raise ValueError(f"cannot serve on {a.host}:{a.port}; try another --port") from error
        print(f"open {url} in a browser; stop with Ctrl-C", flush=True)
        blocks.block_thread()


def launch_options(host: str, port: int) -> dict:
    """How Gradio serves: on one address, without links, telemetry or a tunnel to the outside."""
    from linknet_jax.demo import answers, page

    return {
        "server_name": host,
        "server_port": port,
        "share": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "show_error": True,
        "max_file_size": answers.BYTES,
        "footer_links": [],
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "run_history": False,
        "css": page.STYLE,
    }


def check_packages() -> None:
    """ValueError where the packages of the extra are missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"the demo needs {' and '.join(missing)}: run pip install -e '.[demo]' in the "
            "folder of the repository"
        )


def _keep_to_itself(folder: str) -> None:
    """Gradio reads these when it is imported: nothing is reported, uploads lie in `folder`."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="linknet demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder of a training run")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (this machine's)")
    parser.add_argument("--port", type=int, default=7860, help="default 7860")
    parser.add_argument("--step", default="best", help="best, latest or a number (best)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

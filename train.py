"""Fine-tunes a video-text model from a recipe; flags override the recipe.

accelerate launch train.py recipes/weizmann.yaml --data_root ../shared/data/weizmann --output_dir runs/weizmann
accelerate launch --multi_gpu --num_processes 2 train.py recipes/weizmann.yaml ... --use_cpu   # two processes on a CPU
"""

import sys

from kinetext.cli.console import report_errors


@report_errors
def main() -> None:
    """Reads the command line and runs the recipe."""
    from kinetext.training.arguments import parse_recipe
    from kinetext.training.run import run_training

    run_training(parse_recipe(sys.argv[1:]))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # as `kinetext train` ends
        print("Aborted.", file=sys.stderr)
        sys.exit(130)

"""The command line: flags → settings → managers → one command, and the exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from exceptions import FinetuningError, ResourceError, StopRequested
from finetuning.commands.command_flags import TRAINING_COMMANDS
from finetuning.commands.command_line import (
    WITHOUT_MODEL,
    build_parser,
    module_of,
    overrides_in,
    resume_command,
)
from finetuning.commands.console import error_text, prepare_output, settle_output, tell
from finetuning.commands.named_data import check_data_named
from finetuning.commands.sharing import check_shared
from finetuning.commands.stop_signal import StopSignal, ignore_launcher
from finetuning.device.oom import MAY_BE_OUT_OF_MEMORY, is_out_of_memory, out_of_memory
from finetuning.device.peers import is_peer_lost, peer_lost, say_once
from finetuning.imports import imports_not_collected

if TYPE_CHECKING:
    import argparse

    from finetuning.commands.session import Session
    from finetuning.commands.session import StopSignal as StopChecks
    from finetuning.config.schema import Settings

_HERE = Path(__file__).resolve().parent
_STOPPED = {  # what is said where a command that does not train was stopped
    "board": "페이지를 닫았습니다. 시작한 학습은 계속됩니다. 차례를 기다리던 학습은 페이지를 다시 열면 시작합니다.",
    "generate": "멈췄습니다. 지금까지 만든 답은 남아 있습니다. 같은 명령을 다시 실행하면 이어서 만듭니다.",
    "mine": "멈췄습니다. 결과 파일은 쓰지 않았습니다(있던 파일은 그대로). 같은 명령을 다시 실행하면 처음부터 찾습니다.",
}
_CLOSED_PIPE = 141  # 128 + SIGPIPE, which Windows does not have


def main(argv: Sequence[str]) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name.

    Returns:
        The exit code: 0 done, 2 settings, 3 data, 4 model, 5 memory or disk, 129, 130 and 143 stopped.
    """
    prepare_output()
    started = _Started()
    try:
        _run(argv, started)
        sys.stdout.flush()
        return 0
    except StopRequested as stopped:
        _say("stopped", started.farewell(argv))
        return stopped.exit_code
    except FinetuningError as error:
        _say(error.what, error_text(error))
        return error.exit_code
    except BrokenPipeError:  # as `| head` leaves it
        return _CLOSED_PIPE
    except MAY_BE_OUT_OF_MEMORY as error:
        is_lost = is_peer_lost(error)
        if not (is_lost or is_out_of_memory(error)):
            raise
        shown = peer_lost(started.resume_command(argv)) if is_lost else _without_memory(started)
        _say(shown.what, error_text(shown), after_others=is_lost)
        return shown.exit_code
    finally:
        ignore_launcher()
        settle_output()


def _say(what: str, text: str, after_others: bool = False) -> None:
    """Print why this process ends, in one process of its group; a launcher ends the others while they do this."""
    ignore_launcher()
    say_once(what, lambda: print(text, file=sys.stderr, flush=True), after_others)


class _Started:
    """What a command has built so far, for the message of an error that ends it; None for what it did not reach."""

    def __init__(self) -> None:
        self.stop: StopSignal | None = None
        self.arguments: argparse.Namespace | None = None
        self.settings: Settings | None = None

    def resume_command(self, argv: Sequence[str]) -> str:
        """Return the command that continues the run."""
        run = None if self.arguments is None else self.arguments.run
        return resume_command(argv, None if run is None else run.path)

    def farewell(self, argv: Sequence[str]) -> str:
        """Return what is said where a stop was asked for: what is saved, and how to go on."""
        if self.arguments is not None and module_of(self.arguments) in ("sweep", "seeds"):
            return f"멈췄습니다. 끝난 학습은 건너뛰고 이어서 하려면: {self.resume_command(argv)}"
        if self.arguments is not None and self.arguments.command in _STOPPED:
            return _STOPPED[self.arguments.command]
        if self.stop is not None and self.stop.patient:
            return f"상태를 저장하고 멈췄습니다. 이어서 하려면: {self.resume_command(argv)}"
        return "멈췄습니다. 저장할 학습 상태는 없습니다."


def _run(argv: Sequence[str], started: _Started) -> None:
    started.stop = stop = StopSignal()
    # flags → settings
    started.arguments = arguments = build_parser().parse_args(argv)
    tell(arguments.unused)
    check_shared(arguments)
    started.settings = settings = read_settings(arguments)
    name = module_of(arguments)
    if name in WITHOUT_MODEL:
        importlib.import_module(f"finetuning.commands.{name}").run(arguments, settings)
        return
    # settings → managers, in a session
    with imports_not_collected():
        command = importlib.import_module(f"finetuning.commands.{name}")
        reads_data = arguments.command in (*TRAINING_COMMANDS, "evaluate", "mine") and arguments.suite is None
        if arguments.suite is not None:
            from finetuning.data.hub import notice_offline

            notice_offline()
        session = build_session(settings, stop, frozenset(overrides_in(arguments)), reads_data, arguments.config)
    # one command
    command.run(session, arguments)


def _without_memory(started: _Started) -> FinetuningError:
    from finetuning.config.ladder import remedies

    if started.arguments is None or started.settings is None:  # before anything of the program was loaded
        remedy = "다른 프로그램을 닫거나 메모리가 더 많은 기기에서 실행하세요."
        return ResourceError("메모리가 부족합니다.", where="프로그램을 시작하는 중", remedy=remedy)
    command = started.arguments.command
    helping = remedies(started.settings, "train" if command in TRAINING_COMMANDS else "use")
    return out_of_memory("메모리가 부족합니다.", f"{command} 명령", helping)


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Read the settings in force, with the folder of the run in `model.output_dir`.

    config.yaml lies under the settings file that the user names: defaults < config.yaml < that file < flags.
    A saved model's own settings.yaml takes the place of config.yaml, but for what only the user may give. The run is
    left in `arguments.run`.

    Args:
        arguments: The command line.

    Returns:
        The settings.
    """
    from config_manager import SAVED_SETTINGS, ConfigManager
    from finetuning.commands.rows_read import limits_of_other_rows
    from finetuning.commands.run_folder import folder_to_train, newest_run
    from finetuning.config.layers import note_below, values_below

    overrides, program = overrides_in(arguments), _HERE / "config.yaml"
    below = values_below(program, arguments.config)
    settings = ConfigManager.load(arguments.config or program, below | overrides)
    tell(note_below(program, below, settings))
    if module_of(arguments) in WITHOUT_MODEL:
        return settings
    output_dir = Path(settings.model.output_dir).expanduser()
    if arguments.command in TRAINING_COMMANDS:
        from finetuning.models.continued import follow_adapter

        settings = follow_adapter(settings, overrides.keys() | ConfigManager.keys_in(arguments.config))
        if arguments.command != "train":
            return settings
        arguments.run = folder_to_train(output_dir, arguments, "model.output_dir" in overrides)
    else:
        arguments.run = newest_run(output_dir)
        folder = Path(arguments.model_name or arguments.run.path).expanduser()
        if arguments.config is None and (folder / SAVED_SETTINGS).is_file():
            named = "data.dataset_name" in overrides or arguments.suite or arguments.suite_data
            if arguments.command == "evaluate" and not named:
                trained_on = ConfigManager.saved_dataset(folder)
                check_data_named(folder, trained_on, settings.data, arguments.words)
            settings = ConfigManager.load_saved(folder, settings, overrides, limits_of_other_rows(arguments))
        if arguments.model_name is not None:
            return settings
    if Path(settings.model.output_dir).expanduser() == arguments.run.path:
        return settings
    model = settings.model.model_copy(update={"output_dir": str(arguments.run.path)})
    return settings.model_copy(update={"model": model})


def build_session(
    settings: Settings, stop: StopChecks, given: frozenset[str] = frozenset(), reads_data: bool = True,
    settings_file: Path | None = None,
) -> Session:  # fmt: skip
    """Build the task, the runtime and the managers of a run.

    Args:
        settings: The settings in force.
        stop: Tells whether the user asked for a stop.
        given: Dotted names of the settings that the command line gave.
        reads_data: Whether the data of the settings will be read.
        settings_file: The settings file that the user named.

    Returns:
        The session.
    """
    from finetuning.device.allocator import prepare_allocator
    from finetuning.models.combinations import check_combination

    check_combination(settings)
    prepare_allocator(settings)  # before torch is imported
    read = (settings.model.name, *(settings.data.names() if reads_data else []))
    if not all(Path(name).expanduser().exists() for name in read):
        from finetuning.data.hub import notice_offline

        notice_offline()
    from config_manager import ConfigManager
    from data_manager import DataManager
    from finetuning.commands.session import Session
    from finetuning.config.origins import Origins
    from finetuning.device.precision import allow_tf32, autocast_precision
    from finetuning.device.report import report_device
    from finetuning.device.runtime import start_runtime
    from finetuning.models.continued import decided_by_adapter
    from finetuning.models.vocabulary import check_task
    from finetuning.reporting.log import quiet_libraries, set_up_logging
    from finetuning.tasks.registry import find_task
    from model_manager import ModelManager

    wait = timedelta(minutes=settings.distributed.timeout_minutes)
    runtime = start_runtime(autocast_precision(settings), settings.training.deterministic, wait)
    allow_tf32(runtime.precision)
    set_up_logging(settings.logging, runtime.is_main)
    quiet_libraries()
    report_device(runtime)
    task = find_task(settings)
    check_task(task)
    data, models = DataManager(settings, task), ModelManager(settings, task)
    in_file, adapter = ConfigManager.keys_in(settings_file), decided_by_adapter(settings)
    origins = Origins(given, settings_file, in_file, adapter=adapter)
    return Session(settings, task, runtime, data, models, Path(settings.model.output_dir).expanduser(), stop, origins)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

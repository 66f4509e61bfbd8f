"""What the profile loads before a stage: modules, a shell file, a container, a Python."""

from __future__ import annotations

from pathlib import Path
from shutil import which

from hpc.doctor.ask import ask
from hpc.doctor.finding import Finding, Level
from hpc.doctor.place import Place
from hpc.script import MODULES

SHOW = "import sunpipe, sys; print(sunpipe.__version__, *sys.version_info[:2])"


def modules(place: Place) -> list[Finding]:
    """Each of the profile's modules loads, in a shell like that of a batch script."""
    wanted = place.profile.modules if place.profile else ()
    if not wanted:
        return []
    answer = ask(["bash", "-c", f'{MODULES}; module load "$@"', "doctor", *wanted], 20.0)
    if answer.code != 0 or "ERROR" in answer.err:
        return [Finding("modules", "MISS", f"module load {' '.join(wanted)}: {answer.words}",
                        "modules in the profile; what there is: module avail; submit from a shell"
                        " that has the module command")]  # fmt: skip
    return [Finding("modules", "OK", f"{' '.join(wanted)} can be loaded")]


def setup(place: Place) -> list[Finding]:
    """The shell file that is sourced is there and is valid."""
    if place.profile is None or not place.profile.setup:
        return []
    path = Path(place.profile.setup).expanduser()
    if not path.is_file():
        return [Finding("setup", "MISS", f"{path} is not a file", "setup in the profile")]
    answer = ask(["bash", "-n", str(path)], 10.0)
    if answer.code != 0:
        return [Finding("setup", "MISS", answer.words, f"correct {path}")]
    return [Finding("setup", "OK", f"{path} is a valid shell file")]


def container(place: Place) -> list[Finding]:
    """The container's image and the program that starts it."""
    image = place.profile.container if place.profile else ""
    if not image:
        return []
    program = which("apptainer")
    level: Level = "MISS" if place.where == "allocation" else "WARN"
    found = []
    if not program:
        found.append(Finding("container", level, "apptainer is not on PATH here",
                             "load the site's apptainer module on the nodes (modules in the"
                             " profile), or empty container"))  # fmt: skip
    if not Path(image).expanduser().exists():
        found.append(Finding("container", "MISS", f"{image} does not exist",
                             "build it: apptainer build IMAGE.sif DEFINITION.def; or correct"
                             " container in the profile"))  # fmt: skip
    return found or [Finding("container", "OK", f"{image}, started by {program}")]


def other_python(place: Place) -> list[Finding]:
    """The profile's Python has sunpipe."""
    profile = place.profile
    if profile is None or not profile.python or profile.container:
        return []
    answer = ask([profile.python, "-c", SHOW], 60.0)
    if answer.code != 0:
        level: Level = "MISS" if place.where == "allocation" or not profile.modules else "WARN"
        return [Finding("profile's python", level, f"{profile.python}: {answer.words}",
                        f"in the folder of the sources: {profile.python} -m pip install"
                        " -c constraints.txt -e .; or correct python in the profile")]  # fmt: skip
    return [Finding("profile's python", "OK", f"{profile.python}: sunpipe"
                    f" {' '.join(answer.out.split()[:1])}")]  # fmt: skip

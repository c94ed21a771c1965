"""Make .venv as requirements.txt describes it, and do nothing when it is that already.

With a name, such as `clients`: .venv-clients, as requirements-clients.txt describes it.

Only the standard library is used, and only syntax that any Python can read, so that a Python that
is too old still gets as far as the line that says so.
"""

import hashlib
import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GROUP = "-".join([""] + sys.argv[1:]) if __name__ == "__main__" else ""
REQUIREMENTS = "requirements%s.txt" % GROUP
VENV = os.path.join(ROOT, ".venv" + GROUP)
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "complete")  # there only while nothing is half done
DISK_NEEDED = 3e9  # bytes: .venv itself, and the wheels that pip unpacks on the way

NO_DISK = "There is no room left on the disk: about 3 GB are needed. Make room and run this again."
NO_NETWORK = (
    "The package index cannot be reached, and the packages of requirements.txt come from there. "
    "Check the network (or pip's index settings) and run this again. pip said: "
)
NO_VENV = (
    "This Python cannot make a virtual environment with pip: install what is missing "
    "(on Debian and Ubuntu the package python3-venv) and run this again."
)


def main():
    if sys.version_info < OLDEST:
        sys.exit(
            "Python %d.%d or newer is needed, this is %d.%d.%d: install one and run this again, "
            "or name it: make PYTHON=/path/to/python3 ..." % (OLDEST + sys.version_info[:3])
        )
    wanted = fingerprint()
    if has(wanted):
        return
    print("Setting up .venv%s from %s: once, some minutes ..." % (GROUP, REQUIREMENTS))
    try:
        install(wanted)
    except OSError as error:
        sys.exit(explain(str(error)))
    except subprocess.CalledProcessError as error:  # how the venv module says that pip is missing
        sys.exit(explain(error.output.decode()))


def fingerprint():
    """What .venv must hold: the Python version and the files that list packages."""
    digest = hashlib.sha256()
    names = ["requirements.txt", "pyproject.toml"]
    if GROUP:
        names.append(REQUIREMENTS)  # which adds to requirements.txt
    for name in names:
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return "%d.%d %s" % (sys.version_info[0], sys.version_info[1], digest.hexdigest())


def has(wanted):
    """Whether .venv is complete, works, and is what is wanted."""
    return os.path.exists(PYTHON) and stamp() == wanted


def stamp():
    try:
        with open(STAMP) as file:
            return file.read()
    except OSError:
        return ""


def install(wanted):
    # A finished .venv of the same Python is brought up to date; anything else starts afresh,
    # since an interrupted pip can leave a package half written.
    keep = os.path.exists(PYTHON) and stamp().split(" ")[0] == wanted.split(" ")[0]
    if keep:
        os.remove(STAMP)
    else:
        if shutil.disk_usage(ROOT).free < DISK_NEEDED:
            sys.exit(NO_DISK)
        import venv

        if os.path.islink(VENV):
            os.remove(VENV)  # the link: what it leads to is not ours to clear
        venv.create(VENV, clear=True, with_pip=True)
    pip("-r", REQUIREMENTS)
    pip("--no-build-isolation", "--no-deps", "-e", ".")
    with open(STAMP, "w") as file:
        file.write(wanted)


def pip(*arguments):
    """Run pip install, with the package at hand as the only output; explain a failure."""
    command = [PYTHON, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    process = subprocess.Popen(
        command + list(arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Collecting ") and sys.stdout.isatty():
            sys.stdout.write("\r\033[K  " + line.split()[1])
            sys.stdout.flush()
    if sys.stdout.isatty():
        sys.stdout.write("\r\033[K")
    if process.wait() != 0:
        sys.exit(explain("".join(lines)))


def explain(output):
    """The one line that says what a failed set-up lacks; pip's last lines where it is unknown."""
    if "No space left on device" in output:
        return NO_DISK
    if "No module named ensurepip" in output:
        return NO_VENV
    lines = output.strip().splitlines()
    if "onnection broken" in output or "Max retries exceeded" in output:
        return NO_NETWORK + lines[-1]
    return "\n".join(["Setting up .venv failed:"] + lines[-10:])


if __name__ == "__main__":
    main()

"What pip reads: everything comes from settings.ini, as in every nbdev project."
import os
import re
import shutil
import sys
from configparser import ConfigParser
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

from distutils.command.install_data import install_data  # isort: skip - setuptools brings it

HERE = Path(__file__).resolve().parent
config = ConfigParser(delimiters=["="], interpolation=None)
config.read(HERE / "settings.ini", encoding="utf-8")
project = config["DEFAULT"]
compiling = os.environ.get("RA_PLUGINS_COMPILE", "") not in ("", "0")  # see nbs/support/14_compiled.ipynb
whole = (HERE / "packaging").is_dir()  # the package alone is enough where nobody installs it on a mail server
suffix = "_requirements"
extras = {key.removesuffix(suffix): value.split() for key, value in project.items() if key.endswith(suffix)}
parts = [each for name, needed in extras.items() if name not in ("dev", "docs", "lab", "milter") for each in needed]
extras["all"] = list(dict.fromkeys(parts))
extras["dev"] += extras["all"]


class BuildPackage(build_py):
    "The package, and in a wheel the folder packaging as it is, for `ra-plugins units`."

    def run(self):
        super().run()
        if whole and not self.editable_mode:
            folder = Path(self.build_lib, project["lib_name"], "packaging")
            shutil.copytree(HERE / "packaging", folder, dirs_exist_ok=True)


class BuildCompiled(build_ext):
    "Some modules as machine code, by mypyc, beside their text."

    def finalize_options(self):
        try:
            from mypyc.build import mypycify
        except ImportError:
            sys.exit(f"RA_PLUGINS_COMPILE needs mypyc: pip install '{project['compile_requires']}'")
        sys.path.insert(0, str(HERE))
        from ra_plugins.support.compiled import COMPILED

        files = [name.replace(".", "/") + ".py" for name in COMPILED]
        checked = ["--config-file=", "--cache-dir=/dev/null", "--ignore-missing-imports", "--follow-imports=silent"]
        how = {"opt_level": "2", "debug_level": "0", "group_name": "ra_plugins"}
        self.distribution.ext_modules = mypycify([*checked, *files], **how)
        super().finalize_options()


class InstallShared(install_data):
    "Manual pages and completions, made from the package as it is, where `man` and shells look."

    def run(self):
        sys.path.insert(0, str(HERE))
        from ra_plugins.cli.completion import completions
        from ra_plugins.cli.manual import manual

        made = Path(self.get_finalized_command("build").build_base, "share")
        self.data_files = []
        for name, text in {**manual(), **completions()}.items():
            file = made / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            self.data_files.append((str(Path("share", name).parent), [str(file)]))
        super().run()


def on_the_web(text):
    "README.md where there is no repository around it: its links lead to the project's."
    files = f"{project['git_url']}/blob/{project['branch']}/"
    return re.sub(r"\]\((?![a-z]+:|[/#])([^)\s]+)", lambda link: f"]({files}{link[1]}", text)


setup(
    name=project["repo"],
    version=project["version"],
    description=project["description"],
    long_description=on_the_web((HERE / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    license_expression=project["license"],
    author=project["author"],
    url=project["git_url"],
    project_urls={
        "Documentation": f"{project['doc_host']}{project['doc_baseurl']}/",
        "Source": project["git_url"],
        "Issues": f"{project['git_url']}/issues",
        "Changelog": f"{project['git_url']}/blob/{project['branch']}/CHANGELOG.md",
    },
    keywords=project["keywords"].split(),
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: No Input/Output (Daemon)",
        "Intended Audience :: System Administrators",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)),
        "Topic :: Communications :: Email :: Filters",
        "Topic :: Communications :: Email :: Mail Transport Agents",
        "Typing :: Typed",
    ],
    packages=find_packages(include=[project["lib_name"], project["lib_name"] + ".*"]),
    package_data={project["lib_name"]: ["py.typed"]},
    data_files=[("share/man/man1", []), ("share/man/man8", [])] if whole else [],
    cmdclass={
        "build_py": BuildPackage,
        "install_data": InstallShared,
        **({"build_ext": BuildCompiled} if compiling else {}),
    },
    ext_modules=[Extension("ra_plugins.compiled", [])] if compiling else [],  # what they are, `BuildCompiled` says
    setup_requires=[project["compile_requires"]] if compiling else [],  # which pip installs for the build
    python_requires=">=" + project["min_python"],
    install_requires=project["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": project["console_scripts"].split("\n"),
        "nbdev": [f"{project['lib_path']}={project['lib_path']}._modidx:d"],
    },
)

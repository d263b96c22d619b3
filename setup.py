"What pip reads: everything comes from settings.ini, as in every nbdev project."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
config = ConfigParser(delimiters=["="], interpolation=None)
config.read(HERE / "settings.ini", encoding="utf-8")
project = config["DEFAULT"]

setup(
    name=project["repo"],
    version=project["version"],
    description=project["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license=project["license"],
    author=project["author"],
    keywords=project["keywords"].split(),
    packages=find_packages(include=[project["lib_name"], project["lib_name"] + ".*"]),
    package_data={project["lib_name"]: ["py.typed"]},
    python_requires=">=" + project["min_python"],
    install_requires=project["requirements"].split(),
    extras_require={
        "rater": project["rater_requirements"].split(),
        "sql": project["sql_requirements"].split(),
        "service": project["service_requirements"].split(),
        "dev": [
            each
            for key in ("dev_requirements", "rater_requirements", "sql_requirements", "service_requirements")
            for each in project[key].split()
        ],
        "docs": project["docs_requirements"].split(),
        "lab": project["lab_requirements"].split(),
    },
    entry_points={"console_scripts": project["console_scripts"].split("\n")},
)

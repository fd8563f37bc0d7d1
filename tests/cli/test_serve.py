import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from serving import make_run
from unfreeze.cli.app import app
from unfreeze.errors import UnfreezeError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), epochs=1, clips=4)

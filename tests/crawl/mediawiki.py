"""A real MediaWiki from Debian's package: its own database, settings and uploads, the package's code as it lies.

Debian's tree is never written to: the address of the settings is in the environment (`MW_CONFIG_FILE`), and
uploads and the SQLite files are in the wiki's folder. PHP's own server serves it.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx

from services.process import Service, free_port

CODE = Path("/usr/share/mediawiki")
#: The one who has set it up.
USER = "Keeper"
#: Modules of PHP without which MediaWiki does not start.
_MODULES = {"dom", "intl", "mbstring", "pdo_sqlite", "xml"}

_SETTINGS = """
$wgArticlePath = "/wiki/$1";
$wgUploadDirectory = "{folder}/images";
$wgUploadPath = "/images";
$wgEnableUploads = true;
# Thumbnails are made by whoever asks for one, as on large hosts; the crawler never does.
$wgUseImageMagick = true;
$wgGenerateThumbnailOnParse = false;
$wgCacheDirectory = "{folder}/cache";
$wgTmpDirectory = "{folder}/tmp";
$wgDBservers = [[
    'type' => 'sqlite', 'dbname' => 'wiki', 'host' => '', 'user' => '', 'password' => '', 'load' => 1,
    'dbDirectory' => $wgSQLiteDataDir, 'flags' => DBO_DEFAULT,
    'variables' => ['synchronous' => 'OFF'],  # it need not survive a loss of power
]];
$wgEnableEmail = false;
$wgJobRunRate = 0;
$wgShowExceptionDetails = true;
"""

_ROUTER = """<?php
$path = urldecode(parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH));
file_put_contents(getenv('WIKI_ASKED'), "$path\n", FILE_APPEND | LOCK_EX);
function give($root, $below) {
    $file = realpath($root . $below);
    if ($file === false || !str_starts_with($file, realpath($root) . '/') || !is_file($file)) {
        http_response_code(404);
        return;
    }
    $kinds = ['css' => 'text/css', 'js' => 'text/javascript', 'svg' => 'image/svg+xml'];
    $end = pathinfo($file, PATHINFO_EXTENSION);
    header('Content-Type: ' . ($kinds[$end] ?? mime_content_type($file)));
    header('Content-Length: ' . filesize($file));
    readfile($file);
}
if (str_starts_with($path, '/images/')) {
    give(getenv('WIKI_IMAGES'), substr($path, 7));
    return;
}
if (preg_match('#^/w/(resources|skins|extensions)/#', $path)) {
    give(getenv('MW_INSTALL_PATH'), substr($path, 2));
    return;
}
if (preg_match('#^/w/(api|index|load|thumb)[.]php#', $path, $found)) {
    $script = $found[1];
} elseif ($path === '/' || $path === '/w/' || str_starts_with($path, '/wiki/')) {
    $script = 'index';
} else {
    http_response_code(404);
    return;
}
$_SERVER['SCRIPT_NAME'] = $_SERVER['PHP_SELF'] = "/w/$script.php";
$_SERVER['SCRIPT_FILENAME'] = getenv('MW_INSTALL_PATH') . "/$script.php";
chdir(getenv('MW_INSTALL_PATH'));
require $_SERVER['SCRIPT_FILENAME'];
"""


def missing() -> str:
    """What this machine lacks to run a wiki; empty if nothing."""
    php = shutil.which("php")
    if php is None or not (CODE / "maintenance" / "install.php").is_file():
        return "mediawiki and php-cli are not installed"
    found = subprocess.run([php, "-m"], capture_output=True, text=True, check=True).stdout.lower().split()
    lacking = sorted(_MODULES - set(found))
    return f"PHP lacks {', '.join(lacking)}" if lacking else ""


class MediaWiki:
    """A wiki in a folder. `more` goes into its settings."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: Service | None = None
        for name in ("data", "images", "cache", "tmp"):
            (folder / name).mkdir(parents=True)
        self._run(
            "install",
            *("--dbtype", "sqlite", "--dbpath", str(folder / "data"), "--dbname", "wiki"),
            *("--confpath", str(folder), "--server", self.url, "--scriptpath", "/w", "--skins", "Vector"),
            *("--pass", secrets.token_urlsafe(18), "Almanac of Things", USER),
        )
        with (folder / "LocalSettings.php").open("a") as file:
            file.write(_SETTINGS.replace("{folder}", str(folder)) + more)
        (folder / "router.php").write_text(_ROUTER)

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "MW_INSTALL_PATH": str(CODE),
            "MW_CONFIG_FILE": str(self.folder / "LocalSettings.php"),
            "WIKI_IMAGES": str(self.folder / "images"),
            "WIKI_ASKED": str(self.folder / "asked"),
            "PHP_CLI_SERVER_WORKERS": "3",
        }

    def _run(self, script: str, *arguments: str) -> str:
        command = ["php", str(CODE / "maintenance" / f"{script}.php"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, timeout=300)
        assert done.returncode == 0, f"{script}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def upload(self, folder: Path, user: str) -> None:
        """All pictures of a folder; the text of a file's page is in a file of its name that ends in `.txt`."""
        told = self._run("importImages", "--user", user, "--comment-ext", "txt", str(folder))
        files = sum(each.suffix != ".txt" for each in folder.iterdir())
        assert f"Added: {files}" in told, told[-2000:]

    def write(self, pages: Mapping[str, str]) -> None:
        """Pages by title, as wikitext."""
        folder = self.folder / "texts"
        folder.mkdir()
        for title, text in pages.items():
            (folder / f"{title}.txt").write_text(text, encoding="utf-8")
        told = self._run("importTextFiles", "--overwrite", *map(str, sorted(folder.iterdir())))
        assert f"{len(pages)} succeeded" in told, told[-2000:]
        shutil.rmtree(folder)
        # Categories and lists of pages are filled by jobs.
        self._run("runJobs")

    def start(self) -> None:
        command = ["php", "-S", f"127.0.0.1:{self.port}", str(self.folder / "router.php")]
        self._server = Service(command, self.folder / "server.log", self._environment, self.folder)
        self._server.wait_until(self._answers, within=60)

    def _answers(self) -> bool:
        try:
            answer = httpx.get(f"{self.url}/w/api.php?action=query&format=json", trust_env=False, timeout=30)
            return answer.status_code == 200
        except httpx.TransportError:
            return False

    def pictures_asked(self) -> int:
        """How many requests for pictures there were."""
        paths = (self.folder / "asked").read_text(errors="replace").splitlines()
        return sum(path.startswith("/images/") for path in paths)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()

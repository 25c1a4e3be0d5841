"""How cryoplug is cited: read from CITATION.cff, which the package holds, and written as a sentence or as BibTeX."""

from __future__ import annotations

import importlib.resources
import re
from dataclasses import dataclass

_FIELD = re.compile(r'(?m)^([a-z-]+): *"?(.+?)"? *$')
_AUTHOR = re.compile(r'(?m)^ +(?:- )?(name|family-names|given-names): *"?(.+?)"? *$')


@dataclass(frozen=True)
class Citation:
    """What CITATION.cff says."""

    title: str
    authors: tuple[str, ...]
    """Authors in order; a person is written ``Family, Given``."""
    version: str
    license: str
    address: str = ""
    """Web address: that of the DOI, else that of the repository."""
    year: str = ""
    """Year of the release; empty before the first release."""

    def sentence(self) -> str:
        """Write the citation for a list of references."""
        year = f" ({self.year})" if self.year else ""
        return f"{'; '.join(self.authors)}{year}. {self.title}. Version {self.version}.{self.address and f' {self.address}'}"

    def bibtex(self) -> str:
        """Write the citation for BibTeX; the braces keep names and capitals unchanged."""
        fields = {
            "author": " and ".join(name if "," in name else f"{{{name}}}" for name in self.authors),
            "title": f"{{{self.title}}}",
            "version": self.version,
            "license": self.license,
            "year": self.year,
            "url": self.address,
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        return "\n".join(["@software{cryoplug,", *lines, "}"])


def read_citation() -> Citation:
    """Read the CITATION.cff of the package: plain ``key: value`` lines, and the authors."""
    text = (importlib.resources.files("cryoplug") / "CITATION.cff").read_text(encoding="utf-8")
    fields: dict[str, str] = dict(_FIELD.findall(text))
    block = text.partition("\nauthors:\n")[2]
    listed = re.match(r"(?: .*\n?)*", block)
    authors: list[str] = []
    for one in re.split(r"(?m)^ +- ", listed.group() if listed else "")[1:]:
        name: dict[str, str] = dict(_AUTHOR.findall(f"  {one}"))
        authors.append(
            name.get("name", "") or ", ".join(filter(None, (name.get("family-names"), name.get("given-names"))))
        )
    doi = fields.get("doi", "")
    return Citation(
        title=fields["title"],
        authors=tuple(authors),
        version=fields["version"],
        license=fields["license"],
        address=f"https://doi.org/{doi}" if doi else fields.get("repository-code", fields.get("url", "")),
        year=fields.get("date-released", "")[:4],
    )

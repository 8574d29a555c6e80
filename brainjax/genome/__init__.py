"""Genomes: descriptions of areas and of the rules that connect them, read and grown."""

from brainjax.genome.blueprint import (
    AreaGenes as AreaGenes,
    Genome as Genome,
    Rule as Rule,
    parse as parse,
    read as read,
)
from brainjax.genome.genes import GenomeError as GenomeError
from brainjax.genome.growth import annotate as annotate, grow as grow
from brainjax.genome.identifiers import migrate as migrate

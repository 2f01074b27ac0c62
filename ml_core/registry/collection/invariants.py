"""What must hold between the rows of a tenant. Each rule is one statement, so it sees one moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """A statement that returns ``subject`` and ``what`` of each violation, and what to do about them."""

    statement: str
    remedy: str = "No operation changes such rows: restore the database from a backup, or ask who changed them by hand."


RULES = (
    Rule(
        """
        SELECT e.model_id || ':' || e.environment AS subject,
          format('is at generation %s, while its history has %s rows up to %s',
                 e.generation, h.count, h.last) AS what
        FROM mlcore.environments e CROSS JOIN LATERAL (
          SELECT count(*) AS count, COALESCE(max(generation), 0) AS last, COALESCE(min(generation), 0) AS first
          FROM mlcore.environment_history h
          WHERE h.tenant_id = e.tenant_id AND h.model_id = e.model_id AND h.environment = e.environment) h
        WHERE e.tenant_id = :tenant AND NOT (h.last = e.generation AND h.count = e.generation AND h.first = 1)
        """
    ),
    Rule(
        """
        SELECT e.model_id || ':' || e.environment AS subject,
          format('serves %s, while its history ends with %s', COALESCE(e.version, 'nothing'),
                 COALESCE(h.version, 'nothing')) AS what
        FROM mlcore.environments e JOIN mlcore.environment_history h ON h.tenant_id = e.tenant_id
          AND h.model_id = e.model_id AND h.environment = e.environment AND h.generation = e.generation
        WHERE e.tenant_id = :tenant AND (h.version IS DISTINCT FROM e.version
          OR h.canary_version IS DISTINCT FROM e.canary_version OR h.canary_percent IS DISTINCT FROM e.canary_percent
          OR h.shadow_version IS DISTINCT FROM e.shadow_version)
        """
    ),
    Rule(
        """
        SELECT h.model_id || ':' || h.environment AS subject, 'has a history but no pointer' AS what
        FROM mlcore.environment_history h
        WHERE h.tenant_id = :tenant AND h.generation = 1 AND NOT EXISTS (
          SELECT 1 FROM mlcore.environments e WHERE e.tenant_id = h.tenant_id AND e.model_id = h.model_id
            AND e.environment = h.environment)
        """
    ),
    Rule(
        """
        SELECT e.model_id || ':' || e.environment AS subject,
          format('serves version %s, which is archived', v.version) AS what
        FROM mlcore.environments e JOIN mlcore.versions v ON v.tenant_id = e.tenant_id AND v.model_id = e.model_id
          AND v.version IN (e.version, e.canary_version, e.shadow_version)
        JOIN mlcore.models m ON m.tenant_id = v.tenant_id AND m.model_id = v.model_id
        WHERE e.tenant_id = :tenant AND (v.archived_at IS NOT NULL OR m.archived_at IS NOT NULL)
        """,
        "Restore the version, or promote another one.",
    ),
    Rule(
        """
        SELECT v.model_id || '@' || v.version AS subject, 'has other bytes than the deleted version of its name' AS what
        FROM mlcore.deleted_versions d JOIN mlcore.versions v ON v.tenant_id = d.tenant_id AND v.model_id = d.model_id
          AND v.version = d.version
        WHERE d.tenant_id = :tenant AND v.digest <> d.digest
        """,
        "Register those bytes under another name, promote that, and delete this version.",
    ),
    Rule(
        """
        SELECT v.model_id || '@' || v.version AS subject,
          format('was made from version %s, which does not exist', v.parent_version) AS what
        FROM mlcore.versions v
        WHERE v.tenant_id = :tenant AND v.parent_version IS NOT NULL AND NOT EXISTS (
          SELECT 1 FROM mlcore.versions p WHERE p.tenant_id = v.tenant_id AND p.model_id = v.model_id
            AND p.version = v.parent_version)
        """
    ),
    Rule(
        """
        SELECT m.model_id AS subject, format('would give out the number %s again', m.next_number) AS what
        FROM mlcore.models m
        WHERE m.tenant_id = :tenant AND EXISTS (
          SELECT 1 FROM mlcore.versions v WHERE v.tenant_id = m.tenant_id AND v.model_id = m.model_id
            AND v.number >= m.next_number)
        """
    ),
    Rule(
        """
        SELECT m.model_id AS subject, 'is deleted but has versions' AS what
        FROM mlcore.models m
        WHERE m.tenant_id = :tenant AND m.deleted_at IS NOT NULL AND EXISTS (
          SELECT 1 FROM mlcore.versions v WHERE v.tenant_id = m.tenant_id AND v.model_id = m.model_id)
        """
    ),
)
"""Every rule. A pointer's generation is that of its last history row, and the history has no gap; and so on."""

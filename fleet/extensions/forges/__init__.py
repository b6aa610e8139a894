"""Hosted forges: GitHub, GitLab, Gitea."""

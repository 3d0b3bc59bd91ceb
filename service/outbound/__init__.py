"""HTTP to places that clients name: checked as text, checked as addresses, bounded in every way.

    hosts      which host names a setting allows
    targets    a URL that may be delivered to, in one canonical reading
    addresses  which addresses a connection may be made to
    network    resolves, checks, and connects to exactly what was checked
    resolver   names to addresses
    sender     one POST, one bounded answer
    reply      what is kept of an answer, and when its sender wants the next try
    signing    Standard Webhooks signatures

It guards against server-side request forgery (OWASP SSRF Prevention Cheat Sheet). The one thing it
can't see is a network of one's own behind public addresses.
"""

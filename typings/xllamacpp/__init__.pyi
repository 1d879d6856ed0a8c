class CommonParamsModel:
    path: str

class CommonParams:
    model: CommonParamsModel
    model_alias: set[str]
    hostnames: list[str]
    port: int
    api_keys: list[str]
    n_parallel: int
    n_ctx: int
    use_jinja: bool
    verbosity: int

class Server:
    listening_address: str
    def __init__(self, params: CommonParams) -> None: ...
